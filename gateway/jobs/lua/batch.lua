-- What all scripts about a batch share. KEYS[1] is its record.
-- A record: state, at:<state>, ends (Unix s), pieces, lines:<piece>, next (piece), left (pieces), owner:<piece>, done:<piece>,
-- completed, failed, expired, result_bytes, error_bytes.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Which way its lines are to be dealt with: 'open', 'cancelling', 'ending' (its time is over), or 'over' and 'gone'.
local function mode(now)
  local record = redis.call('HMGET', KEYS[1], 'state', 'ends')
  if not record[1] then
    return 'gone'
  end
  if record[1] == 'cancelling' then
    return 'cancelling'
  end
  if record[1] ~= 'validating' and record[1] ~= 'in_progress' and record[1] ~= 'finalizing' then
    return 'over'
  end
  return now > tonumber(record[2]) * 1000 and 'ending' or 'open'
end

local function enter(state, now)
  redis.call('HSET', KEYS[1], 'state', state, 'at:' .. state, math.floor(now / 1000))
end
