-- Show that the fetcher lives, and what it has, if anybody wants to read along.
-- KEYS: lease, batches, wanted; ARGV: token, lease in ms, life of the batches in ms, 1 at the end, batches…
-- Returns 0: the lease is another's by now; 1: nobody reads along; 2: somebody does.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
for index = 5, #ARGV do
  redis.call('RPUSH', KEYS[2], ARGV[index])
end
if #ARGV > 4 then
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
if ARGV[4] == '1' then
  redis.call('DEL', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1 + redis.call('EXISTS', KEYS[3])
