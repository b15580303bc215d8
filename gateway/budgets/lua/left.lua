-- What is spent, changing nothing. given: epoch, the limits.
-- Returns {what, now (ms), epoch, then for each limit: start, spent, end}; what: 1, or 6 the windows are none of now.
read_ledger({})
local reply = {1, now_ms, epoch}
for _, limit in ipairs(given[2]) do
  local counter = counter_of(limit, redis.call('HGET', KEYS[1], limit[1]))
  if not counter then
    return {6, now_ms, epoch}
  end
  reply[#reply + 1] = counter.start
  reply[#reply + 1] = counter.spent
  reply[#reply + 1] = counter.over
end
return reply
