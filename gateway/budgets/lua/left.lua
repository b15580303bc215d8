-- What is left, changing nothing.
-- ARGV: for each limit: field, window, unit, amount. Returns {now (s), then for each limit: left, end of its window (s)}.
local reply = {now_s}
for i = 1, #ARGV, 4 do
  local spent, start = spent_in(redis.call('HGET', KEYS[1], ARGV[i]), (window(ARGV[i + 1], now_s)))
  local _, over = window(ARGV[i + 1], start)
  reply[#reply + 1] = math.max(0, tonumber(ARGV[i + 3]) - spent)
  reply[#reply + 1] = over
end
return reply
