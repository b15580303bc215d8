-- Put a ticket back at the end of the queue, or with 'drop' take it out, if it is still this one's.
-- KEYS: queue; ARGV: group, consumer, number, 'again'|'drop'|'renew', batch
-- Returns 1; 0: it is another's.
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)
if not pending[1] or pending[1][2] ~= ARGV[2] then
  return 0
end
if ARGV[4] == 'renew' then
  redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'JUSTID')
  return 1
end
if ARGV[4] == 'again' then
  redis.call('XADD', KEYS[1], '*', 'batch', ARGV[5])
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.call('XDEL', KEYS[1], ARGV[3])
return 1
