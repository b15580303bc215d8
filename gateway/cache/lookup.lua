-- Find an answer, or become the one who fetches it.
-- KEYS: the answer in both forms, in one form, the lease on fetching it
-- ARGV: my token, the lease in milliseconds (0: only look)
-- Returns both answers (false: none), and the token of whoever fetches it (false: nobody, or it was found).
local found = redis.call('MGET', KEYS[1], KEYS[2])
if found[1] or found[2] or ARGV[2] == '0' then
  return {found[1], found[2], false}
end
if redis.call('SET', KEYS[3], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return {false, false, ARGV[1]}
end
return {false, false, redis.call('GET', KEYS[3])}
