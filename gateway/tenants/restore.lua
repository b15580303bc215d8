-- Give back what a server has lost: records of which it has none, or an older one.
-- KEYS: records, revisions
-- ARGV: name, revision, record of each
-- Returns how many it did not have.
local missed = 0
for index = 1, #ARGV, 3 do
  local there = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[index]) or '0')
  if there < tonumber(ARGV[index + 1]) then
    redis.call('HSET', KEYS[1], ARGV[index], ARGV[index + 2])
    redis.call('ZADD', KEYS[2], ARGV[index + 1], ARGV[index])
    missed = missed + 1
  end
end
return missed
