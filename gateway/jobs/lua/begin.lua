-- Note a batch. KEYS: record; ARGV: life in seconds, names and values…
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
