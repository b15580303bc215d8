-- Write a tenant's record, if nobody has written it since it was read.
-- KEYS: records, revisions
-- ARGV: name, the revision that was read (0: there was none), the record
-- Returns 1 and the new revision, or 0 and the one that is there. Revisions are the server's time in microseconds, so
-- that they go on growing when a server that lost data takes over.
local there = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or '0')
if there ~= tonumber(ARGV[2]) then
  return {0, string.format('%.0f', there)}
end
local time = redis.call('TIME')
local revision = time[1] * 1000000 + time[2]
local newest = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if newest[2] and tonumber(newest[2]) >= revision then
  revision = tonumber(newest[2]) + 1
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[2], string.format('%.0f', revision), ARGV[1])
return {1, string.format('%.0f', revision)}
