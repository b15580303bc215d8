-- The state of one tenant. All keys share the tenant's hash tag, so that a Cluster keeps them on one node.
--
--   KEYS[1] ledger  hash    "run"     the server process that served the last call
--                           "epoch"   a name for the time since the server last may have lost something; "parent" the
--                                     epoch before it; "ended" packed: earlier epoch -> what "seq" was at its end
--                           "seq"     how many changes there were to what is spent
--                           "opens"   until then (ms) holds that fail closed wait, so that all gateways can say what
--                                     they know; "bases" what they said, packed: field -> {seq, start, spent,
--                                     what gateways of earlier epochs raised it by, in the window that begins at}
--                           "rate:requests", "rate:tokens" -> "<level> <at, us>"
--                           "<unit>:<per>[:<feature>][:@<key>]" -> a counter, see below
--   KEYS[2] open    hash    hold id -> its record (MessagePack, see hold.lua)
--   KEYS[3] leases  zset    hold id -> when its lease ends, ms
--   KEYS[4] usage   stream  one entry for each hold that ended: the newest, append-only
--   KEYS[5] closed  zset    ids that must have no effect any more although nothing else tells so -> until when, ms
--   KEYS[6] carried hash    what older entries of the usage log came to: "<field>@<start>" -> "<amount> <until, s>"
--
-- A counter of a calendar window: "<start, s> <spent in it, held amounts included>"; the first hold of a new window
-- overwrites it. A counter of a rolling window: MessagePack of {start, spent, start, spent, …}, one pair for each part
-- ("bucket") of the period that still counts, oldest first; a bucket counts until all of it is older than the period.
--
--   a hold:  none --hold--> open --settle--> gone, booked at its charge
--                            \----expire---> gone, booked at what it reserved (its lease ended: its gateway is dead)
--
-- Counters are what the usage log, "carried" and the open holds add up to (rebuild.lua).
--
-- What a server lost. A server that is not the one before (another "run": restarted, failed over, emptied) may know less
-- than gateways were told. Each gateway remembers, for each counter, the newest value that it was told and its "seq";
-- with the first call that shows a new epoch it tells that (recall.lua), before anything else. The newest word on a
-- counter counts, so that it is restored to what it was after the last hold that any gateway, which still lives, heard
-- of. What a gateway has told contains its own open holds: they are put back (putback.lua) without being added again.
--
-- Nothing here expires by itself: a server that evicts what expires, when its memory is full, evicts no budget.
-- Numbers are doubles: amounts stay below 2^53.
--
-- ARGV[1] is the process that runs this, ARGV[2] MessagePack of an array whose first entry is the epoch that the gateway
-- knows ('' none). Keys and shapes may only grow within the number that all keys begin with: a script leaves alone what
-- it does not know, so that scripts of old and new gateways work on the same data.

local time = redis.call('TIME')
local now_s = tonumber(time[1])
local now_us = now_s * 1000000 + tonumber(time[2])
local now_ms = math.floor(now_us / 1000)
local run, given = ARGV[1], cmsgpack.unpack(ARGV[2])

local LEAST_WINDOW = 0.8 -- of this one's length: windows follow each other no closer (23 hours, 28 days)
local CLOSED_MS = 3600000 -- longer than any gateway goes on trying to settle
local EXPIRE_AT_ONCE = 100
local RECALL_MS = 1000 -- gateways notice a new epoch in this time
local LOG_ENTRIES, FOLD_AT_ONCE = 5000, 500

local function whole(number)
  return string.format('%.0f', number)
end

-- A bucket counts until `period` after its end.
local function buckets_that_count(value, length, period)
  local found = {}
  local packed = value and cmsgpack.unpack(value) or {}
  for i = 1, #packed, 2 do
    if packed[i] + length + period > now_s then
      found[#found + 1] = packed[i]
      found[#found + 1] = packed[i + 1]
    end
  end
  return found
end

local function sum_of(buckets)
  local sum = 0
  for i = 2, #buckets, 2 do
    sum = sum + buckets[i]
  end
  return sum
end

-- What a counter says now. A limit is {field, unit, amount, from, to, after} (this calendar window and the end of the
-- next one, Unix time), or {field, unit, amount, length, period} (rolling). nil: the windows are none of now.
-- A clock that went back (a failover) opens no new window, nor does a policy that moves its tenant to another time zone:
-- what began within this one's length is this one.
local function counter_of(limit, value)
  local counter = {field = limit[1], unit = limit[2], amount = limit[3], spent = 0}
  if #limit == 5 then
    local length, period = limit[4], limit[5]
    counter.buckets = buckets_that_count(value, length, period)
    counter.spent = sum_of(counter.buckets)
    counter.start = math.max(now_s - now_s % length, counter.buckets[#counter.buckets - 1] or 0)
    counter.till = counter.start + length + period
    counter.over = (counter.buckets[1] or counter.start) + length + period
    return counter
  end
  if now_s < limit[4] or now_s >= limit[6] then
    return nil
  end
  counter.start, counter.over = limit[4], limit[5]
  if now_s >= limit[5] then
    counter.start, counter.over = limit[5], limit[6]
  end
  if value then
    local begun, spent = string.match(value, '^(%d+) (%d+)$')
    if tonumber(begun) > counter.start - LEAST_WINDOW * (counter.over - counter.start) then
      counter.start, counter.spent = tonumber(begun), tonumber(spent)
    end
  end
  counter.till = counter.over
  return counter
end

-- The value of a counter after `amount` more was spent in its newest part.
local function counter_text(counter, amount)
  counter.spent = math.max(0, counter.spent + amount)
  local buckets = counter.buckets
  if not buckets then
    return whole(counter.start) .. ' ' .. whole(counter.spent)
  end
  if buckets[#buckets - 1] == counter.start then
    buckets[#buckets] = math.max(0, buckets[#buckets] + amount)
  else
    buckets[#buckets + 1] = counter.start
    buckets[#buckets + 1] = math.max(0, amount)
  end
  return cmsgpack.pack(buckets)
end

local function is_rolling(field)
  return string.find(field, ':rolling-', 1, true)
end

-- A counter's value after a change of what was spent in one part of it; what is over is nobody's limit any more.
-- Returns start and sum, and the value where it is another one.
local function changed_by(value, field, start, till, amount)
  if is_rolling(field) then
    local buckets, found, at = value and cmsgpack.unpack(value) or {}, false, 1
    for i = 1, #buckets, 2 do
      if buckets[i] == start then
        buckets[i + 1] = math.max(0, buckets[i + 1] + amount)
        found = true
      elseif buckets[i] < start then
        at = i + 2
      end
    end
    if not found and till > now_s then
      table.insert(buckets, at, start)
      table.insert(buckets, at + 1, math.max(0, amount))
    end
    return buckets[#buckets - 1] or start, sum_of(buckets), cmsgpack.pack(buckets)
  end
  local begun, spent = start, 0
  if value then
    local text_begun, text_spent = string.match(value, '^(%d+) (%d+)$')
    if tonumber(text_begun) >= start then
      begun, spent = tonumber(text_begun), tonumber(text_spent)
    end
  end
  if begun == start then
    spent = math.max(0, spent + amount)
    return begun, spent, whole(start) .. ' ' .. whole(spent)
  end
  return begun, spent
end

-- The same, read and written.
local function add(field, start, till, amount)
  local begun, spent, text = changed_by(redis.call('HGET', KEYS[1], field), field, start, till, amount)
  if text then
    redis.call('HSET', KEYS[1], field, text)
  end
  return begun, spent
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

-- `at`: what was booked where, {{field, start, till, amount}, …}: what counters are rebuilt from.
local function note_usage(id, how, feature, taken_us, charge, at)
  -- Numbers are handed over with 17 digits: all that a double has.
  redis.call('XADD', KEYS[4], '*', 'id', id, 'how', how, 'feature', feature, 'taken_us', taken_us,
    'tokens', charge[1], 'nanousd', charge[2], 'input', charge[3], 'output', charge[4],
    'estimated', charge[5], 'at', cmsgpack.pack(at))
end

local function close(id)
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', now_ms)
  redis.call('ZADD', KEYS[5], now_ms + CLOSED_MS, id)
end

local function is_closed(id)
  return redis.call('ZSCORE', KEYS[5], id)
end

-- Holds whose lease ended: what they reserved is counted as spent already, and stays so.
local function expire_leases()
  local ids = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now_ms, 'LIMIT', 0, EXPIRE_AT_ONCE)
  for _, id in ipairs(ids) do
    local packed = redis.call('HGET', KEYS[2], id)
    if packed then
      local record = cmsgpack.unpack(packed)
      local at = {}
      if not record.recalled then -- else it is part of what was recalled
        for _, limit in ipairs(record.limits) do
          at[#at + 1] = {limit[1], limit[3], limit[4], in_unit(limit[2], record.tokens, record.nanousd)}
        end
      end
      note_usage(id, 'expired', record.feature, record.taken_us,
        {record.tokens, record.nanousd, record.input, record.output, 1}, at)
      redis.call('HDEL', KEYS[2], id)
    end
    redis.call('ZREM', KEYS[3], id)
  end
  return #ids
end

-- The epoch. Another process than before, or none before, begins a new one; its counters are what it still has.
local last_run, epoch, seq, opens_ms
local EPOCHS_KEPT = 32

-- Reads the epoch, and with it counters and rates, for each call costs: a script's first step. Returns the values of `fields`.
local function read_ledger(fields)
  local values = redis.call('HMGET', KEYS[1], 'run', 'epoch', 'seq', 'opens', unpack(fields))
  last_run, epoch, seq, opens_ms = values[1], values[2] or '', tonumber(values[3] or 0), tonumber(values[4] or 0)
  local found = {}
  for i = 1, #fields do
    found[i] = values[i + 4]
  end
  return found
end

local function ended_epochs()
  local packed = redis.call('HGET', KEYS[1], 'ended')
  return packed and cmsgpack.unpack(packed) or {}
end

-- True when this server had what happened at `at_seq` of an epoch that is over.
local function has_heard(of_epoch, at_seq)
  local ended = ended_epochs()[of_epoch]
  return ended ~= nil and at_seq <= ended
end

-- Holds that fail closed wait for other gateways unless nobody can know more: the tenant is new and the server is not, or
-- only this machine uses the server (`server` is 'local') and this gateway has just started.
local function begin_epoch(server)
  local bases, ended, kept = {}, ended_epochs(), 0
  if epoch ~= '' then
    local all = redis.call('HGETALL', KEYS[1])
    for i = 1, #all, 2 do
      if is_rolling(all[i]) then
        local buckets = cmsgpack.unpack(all[i + 1])
        bases[all[i]] = {seq, buckets[#buckets - 1] or 0, sum_of(buckets)}
      elseif string.match(all[i], '^tokens:') or string.match(all[i], '^nanousd:') then
        local begun, spent = string.match(all[i + 1], '^(%d+) (%d+)$')
        bases[all[i]] = {seq, tonumber(begun), tonumber(spent)}
      end
    end
  end
  if given[1] ~= '' or server == 'young' or (epoch ~= '' and server ~= 'local') then
    opens_ms = now_ms + RECALL_MS
  end
  for _ in pairs(ended) do
    kept = kept + 1
  end
  if kept >= EPOCHS_KEPT then
    ended = {}
  end
  if epoch ~= '' then
    ended[epoch] = seq
  end
  local parent = epoch ~= '' and epoch or given[1]
  epoch = whole(now_us) .. '-' .. string.sub(run, 1, 6)
  redis.call('HSET', KEYS[1], 'run', run, 'epoch', epoch, 'parent', parent, 'seq', whole(seq),
    'opens', whole(opens_ms), 'bases', cmsgpack.pack(bases), 'ended', cmsgpack.pack(ended))
end

-- True when the gateway has to tell what it knows before it goes on.
local function is_other_epoch(server)
  if last_run ~= run then
    begin_epoch(server)
  end
  return given[1] ~= '' and given[1] ~= epoch
end

local function changed()
  seq = seq + 1
  redis.call('HSET', KEYS[1], 'seq', whole(seq))
end
