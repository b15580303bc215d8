-- Write the answer, or with an empty name of the owner the end that its client wants: the first to come is heard.
-- KEYS: record; ARGV: owner, answer, life in ms, state
-- Returns 1: written; 0: it was over already, or is another's; -1: there is no such record.
local record = redis.call('HMGET', KEYS[1], 'state', 'owner')
if not record[1] then
  return -1
end
if record[1] ~= 'running' or (ARGV[1] ~= '' and record[2] ~= ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], 'state', ARGV[4], 'answer', ARGV[2])
redis.call('HDEL', KEYS[1], 'owner', 'lease')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
