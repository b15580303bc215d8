-- Put open holds back that the server lost. What they reserve is part of what their gateway told.
--
-- given: epoch, lease ms, then for each hold: {id, epoch and seq in which it was taken}; ARGV[3…]: their records.
-- Returns {what, then for each hold 1 (it is open) or 0 (it ended before)}; what: 1, or 2 another epoch.
read_ledger({})
if is_other_epoch() then
  return {2}
end
local reply = {1}
for i = 3, #given do
  local id, taken_in, taken_seq = unpack(given[i])
  local open = redis.call('HEXISTS', KEYS[2], id) == 1
  local ended = taken_in == epoch or has_heard(taken_in, taken_seq) or is_closed(id)
  if not open and not ended then
    local record = cmsgpack.unpack(ARGV[i])
    record.recalled = 1
    redis.call('HSET', KEYS[2], id, cmsgpack.pack(record))
    open = true
  end
  if open then
    redis.call('ZADD', KEYS[3], now_ms + given[2], id)
  end
  reply[#reply + 1] = open and 1 or 0
end
return reply
