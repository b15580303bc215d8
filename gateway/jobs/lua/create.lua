-- Note an answer that is being made, with a lease on making it.
-- KEYS: record; ARGV: owner, lease in ms, the request, life in ms
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'state', 'running', 'owner', ARGV[1], 'lease', now + ARGV[2], 'tries', 1, 'asked', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
