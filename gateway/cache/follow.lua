-- Read along with a fetcher.
-- KEYS: lease, batches, wanted; ARGV: the fetcher's token, how many batches I have, life of my wish in ms
-- Returns whether the fetcher lives (1, 0), and the batches after those.
redis.call('SET', KEYS[3], '1', 'PX', ARGV[3])
local lives = redis.call('GET', KEYS[1]) == ARGV[1]
return {lives and 1 or 0, redis.call('LRANGE', KEYS[2], ARGV[2], -1)}
