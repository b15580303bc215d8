-- Take room for a tenant's file, more of it while it grows; what has ended makes room.
-- KEYS: order, sizes, ends; ARGV: file, bytes, life in seconds, most bytes, most files, place in the order or ''
-- Returns 1; 0: there is no room for so many bytes; -1: there are too many files.
local now = tonumber(redis.call('TIME')[1])
for _, file in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now)) do
  redis.call('ZREM', KEYS[1], file)
  redis.call('HDEL', KEYS[2], file)
  redis.call('ZREM', KEYS[3], file)
end
local total, files = tonumber(ARGV[2]), 0
local sizes = redis.call('HGETALL', KEYS[2])
for index = 1, #sizes, 2 do
  if sizes[index] ~= ARGV[1] then
    total = total + tonumber(sizes[index + 1])
    files = files + 1
  end
end
if tonumber(ARGV[4]) > 0 and total > tonumber(ARGV[4]) then
  return 0
end
if tonumber(ARGV[5]) > 0 and files >= tonumber(ARGV[5]) then
  return -1
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[3], now + ARGV[3], ARGV[1])
if ARGV[6] ~= '' then
  redis.call('ZADD', KEYS[1], ARGV[6], ARGV[1])
end
for index = 1, 3 do
  redis.call('EXPIRE', KEYS[index], 3000000)
end
return 1
