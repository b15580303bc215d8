-- The state of one tenant. All five keys share the tenant's hash tag, so that a Cluster keeps them on one node.
--
--   KEYS[1] ledger  hash    "epoch"; "rate:requests" and "rate:tokens" -> "<level> <at, us>";
--                           "<unit>:<per>[:<feature>]" -> "<start of the window, s> <spent in it, held amounts included>"
--   KEYS[2] open    hash    hold id -> its record (MessagePack, below)
--   KEYS[3] leases  zset    hold id -> when its lease ends, ms
--   KEYS[4] usage   stream  one entry for each hold that ended, capped
--   KEYS[5] closed  zset    ids that must have no effect any more although nothing else tells so -> until when, ms
--
--   a hold:  none --hold--> open --settle--> gone, booked at its charge
--                            \----expire---> gone, booked at what it reserved (its lease ended: its gateway is dead)
--
-- Nothing here expires by itself: a server that evicts what expires, when its memory is full, evicts no budget. A
-- limit has one field, which the first hold of a new window overwrites.
--
-- "epoch" is written by the first hold. When it differs from the one that a hold was taken in, the store was emptied
-- in between (and only then), and what the hold knows is put back. Numbers are doubles: amounts stay below 2^53.

local time = redis.call('TIME')
local now_s = tonumber(time[1])
local now_us = now_s * 1000000 + tonumber(time[2])
local now_ms = math.floor(now_us / 1000)

local USAGE_ENTRIES = 10000
local CLOSED_MS = 3600000 -- longer than any gateway goes on trying to settle
local EXPIRE_AT_ONCE = 100

local function whole(number)
  return string.format('%.0f', number)
end

-- Days since 1970-01-01 to the day of the month (H. Hinnant, chrono-compatible low-level date algorithms).
local function day_of_month(days)
  local z = days + 719468
  local doe = z % 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  return doy - math.floor((153 * mp + 2) / 5) + 1
end

-- Start and end of the calendar window (UTC; weeks begin on Monday) that holds the second `s`.
local function window(per, s)
  local length = ({minute = 60, hour = 3600, day = 86400})[per]
  if length then
    local start = s - s % length
    return start, start + length
  end
  local days = math.floor(s / 86400)
  if per == 'week' then
    local monday = days - (days + 3) % 7 -- day 0 was a Thursday
    return monday * 86400, (monday + 7) * 86400
  end
  local first = days - day_of_month(days) + 1
  local later = first + 31 -- in the next month, on its 1st to 4th
  return first * 86400, (later - day_of_month(later) + 1) * 86400
end

-- What a limit's field says for the window that begins at `start`: spent, and the start that counts. A clock that went
-- back (a failover) opens no new window.
local function spent_in(value, start)
  if value then
    local begun, spent = string.match(value, '^(%d+) (%d+)$')
    if tonumber(begun) >= start then
      return tonumber(spent), tonumber(begun)
    end
  end
  return 0, start
end

-- Changes what is spent in one window; a window that is over is nobody's limit any more.
local function add(field, start, amount)
  local spent, begun = spent_in(redis.call('HGET', KEYS[1], field), start)
  if begun == start then
    redis.call('HSET', KEYS[1], field, whole(start) .. ' ' .. whole(math.max(0, spent + amount)))
  end
end

-- A rate is GCRA in its form as a continuous-state leaky bucket (ITU-T I.371, annex A): the level drains evenly.
local function level_now(value, drain_us)
  if not value then
    return 0
  end
  local level, at = string.match(value, '^(%S+) (%d+)$')
  return math.max(0, tonumber(level) - math.max(0, now_us - tonumber(at)) * drain_us)
end

local function level_text(level)
  return string.format('%.9f ', level) .. whole(now_us)
end

-- The amount of a limit's unit in (tokens, nanousd).
local function in_unit(unit, tokens, nanousd)
  if unit == 'tokens' then
    return tokens
  end
  return nanousd
end

local function note_usage(id, how, record, tokens, nanousd, input, output, estimated)
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', USAGE_ENTRIES, '*', 'id', id, 'how', how, 'feature', record.feature,
    'taken_us', whole(record.taken_us), 'tokens', whole(tokens), 'nanousd', whole(nanousd),
    'input', input, 'output', output, 'estimated', estimated)
end

local function close(id)
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', now_ms)
  redis.call('ZADD', KEYS[5], now_ms + CLOSED_MS, id)
end

local function is_closed(id)
  return redis.call('ZSCORE', KEYS[5], id)
end

local function epoch_now()
  redis.call('HSETNX', KEYS[1], 'epoch', whole(now_us))
  return redis.call('HGET', KEYS[1], 'epoch')
end

-- Holds whose lease ended: what they reserved is counted as spent already, and stays so.
local function expire_leases()
  local ids = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now_ms, 'LIMIT', 0, EXPIRE_AT_ONCE)
  for _, id in ipairs(ids) do
    local packed = redis.call('HGET', KEYS[2], id)
    if packed then
      local record = cmsgpack.unpack(packed)
      note_usage(id, 'expired', record, record.tokens, record.nanousd, record.input, record.output, 1)
      redis.call('HDEL', KEYS[2], id)
    end
    redis.call('ZREM', KEYS[3], id)
  end
  return #ids
end
