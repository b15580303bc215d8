-- Book what was granted without the store, in the windows of now. Only the first booking of an id does anything.
--
-- given: epoch, id, tokens, nanousd, input tokens, output tokens, estimated (0 or 1), feature, the limits.
-- Returns {what, epoch, now (ms), seq, then for each limit: start, spent, end}: 1 booked; 0 it had been before; 2 another epoch; 6 the windows are none of now.
local id, tokens, nanousd = given[2], given[3], given[4]
read_ledger({})
if is_other_epoch() then
  return {2, epoch, now_ms, seq}
end
if is_closed(id) then
  return {0, epoch, now_ms, seq}
end
local counters, writes, at = {}, {}, {}
for index, limit in ipairs(given[9]) do
  local counter = counter_of(limit, redis.call('HGET', KEYS[1], limit[1]))
  if not counter then
    return {6, epoch, now_ms, seq}
  end
  counters[index] = counter
end
for _, counter in ipairs(counters) do
  local amount = in_unit(counter.unit, tokens, nanousd)
  redis.call('HSET', KEYS[1], counter.field, counter_text(counter, amount))
  at[#at + 1] = {counter.field, counter.start, counter.till, amount}
end
close(id)
changed()
note_usage(id, 'open', given[8], now_us, {tokens, nanousd, given[5], given[6], given[7]}, at)
local reply = {1, epoch, now_ms, seq}
for _, counter in ipairs(counters) do
  reply[#reply + 1] = counter.start
  reply[#reply + 1] = counter.spent
  reply[#reply + 1] = counter.over
end
return reply
