-- A piece is done when there is something of each of its lines, or when its batch is cancelled.
-- KEYS: record, leases, results, tries; ARGV: piece
-- Returns 1: it is; 0: it is not.
local piece = ARGV[1]
local what = mode(now_ms())
if what == 'gone' or what == 'over' then
  return 1
end
if redis.call('HEXISTS', KEYS[1], 'done:' .. piece) == 0 then
  local lines = tonumber(redis.call('HGET', KEYS[1], 'lines:' .. piece))
  if what ~= 'cancelling' and redis.call('HLEN', KEYS[3]) < lines then
    return 0
  end
  redis.call('HSET', KEYS[1], 'done:' .. piece, 1)
end
redis.call('HDEL', KEYS[1], 'owner:' .. piece)
redis.call('ZREM', KEYS[2], piece)
redis.call('DEL', KEYS[4])
return 1
