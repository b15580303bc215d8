-- Take over the making of an answer whose maker is gone.
-- KEYS: record; ARGV: owner, lease in ms
-- Returns {0}: there is nothing to be made; {1}: somebody lives and makes it; {2, which try this is, the request}.
local record = redis.call('HMGET', KEYS[1], 'state', 'lease', 'tries', 'asked')
if record[1] ~= 'running' then
  return {0}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(record[2]) > now then
  return {1}
end
local tries = tonumber(record[3]) + 1
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'lease', now + ARGV[2], 'tries', tries, 'anew', 1)
return {2, tries, record[4]}
