-- Show that the maker lives; with a lease of 0, that it gives the answer up for another to make.
-- KEYS: record; ARGV: owner, lease in ms
-- Returns 0: it is not this one's any more (deleted, cancelled, or another's).
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] or redis.call('HGET', KEYS[1], 'state') ~= 'running' then
  return 0
end
if ARGV[2] == '0' then
  redis.call('HSET', KEYS[1], 'lease', 0)
  redis.call('HINCRBY', KEYS[1], 'tries', -1)
  return 1
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'lease', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2])
return 1
