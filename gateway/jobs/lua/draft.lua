-- Note the draft beside the answer that is being made.
-- KEYS: record; ARGV: owner, draft
if redis.call('HGET', KEYS[1], 'owner') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'draft', ARGV[2])
end
return 1
