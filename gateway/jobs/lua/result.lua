-- Note what came of a line: the first to say it is heard.
-- KEYS: record, results; ARGV: piece, line, what to note, completed|failed|expired, its size
-- Returns the mode.
local what = mode(now_ms())
if what == 'gone' or what == 'over' or redis.call('HEXISTS', KEYS[1], 'done:' .. ARGV[1]) == 1 then
  return what
end
if redis.call('HSETNX', KEYS[2], ARGV[2], ARGV[3]) == 1 then
  redis.call('EXPIRE', KEYS[2], redis.call('TTL', KEYS[1]))
  redis.call('HINCRBY', KEYS[1], ARGV[4], 1)
  redis.call('HINCRBY', KEYS[1], ARGV[4] == 'completed' and 'result_bytes' or 'error_bytes', ARGV[5])
end
return what
