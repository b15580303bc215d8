-- Book what was granted without the store, in the windows of now. Only the first booking of an id does anything.
--
-- ARGV: id, tokens, nanousd, input tokens, output tokens, estimated (0 or 1), feature,
--       then for each limit: field, window, unit, amount. Returns 1 when it was booked, 0 when it had been before.
local id, tokens, nanousd = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if is_closed(id) then
  return 0
end
close(id)
for i = 8, #ARGV, 4 do
  local _, start = spent_in(redis.call('HGET', KEYS[1], ARGV[i]), (window(ARGV[i + 1], now_s)))
  add(ARGV[i], start, in_unit(ARGV[i + 2], tokens, nanousd))
end
note_usage(id, 'open', {feature = ARGV[7], taken_us = now_us}, tokens, nanousd, ARGV[4], ARGV[5], ARGV[6])
return 1
