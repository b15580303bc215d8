-- Take a piece of a batch that nobody works on: one whose worker is gone, else the next.
-- KEYS: record, leases; ARGV: owner, lease in ms
-- Returns {mode, piece}; piece -1: all are done; -2: others work on those that are left.
local now = now_ms()
local what = mode(now)
if what == 'gone' or what == 'over' then
  return {what, -1}
end
if redis.call('HGET', KEYS[1], 'state') == 'validating' then
  enter('in_progress', now)
end
local piece = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1)[1]
if not piece then
  local record = redis.call('HMGET', KEYS[1], 'next', 'pieces')
  if tonumber(record[1]) < tonumber(record[2]) then
    piece = record[1]
    redis.call('HINCRBY', KEYS[1], 'next', 1)
  end
end
if piece then
  redis.call('ZADD', KEYS[2], now + ARGV[2], piece)
  redis.call('HSET', KEYS[1], 'owner:' .. piece, ARGV[1])
  redis.call('EXPIRE', KEYS[2], redis.call('TTL', KEYS[1]))
  return {what, tonumber(piece)}
end
return {what, redis.call('ZCARD', KEYS[2]) == 0 and -1 or -2}
