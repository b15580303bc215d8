-- Show that a piece's worker lives; with a lease of 0, that it gives the piece up.
-- KEYS: record, leases; ARGV: owner, lease in ms, piece
-- Returns the mode; 'lost': the piece is another's.
local now = now_ms()
if redis.call('HGET', KEYS[1], 'owner:' .. ARGV[3]) ~= ARGV[1] then
  return 'lost'
end
redis.call('ZADD', KEYS[2], ARGV[2] == '0' and 0 or now + ARGV[2], ARGV[3])
return mode(now)
