-- Extend the leases of holds that are still in use.
--
-- given: epoch, lease ms, then the ids. Returns {what, then for each hold 1 (its lease runs on) or 0 (it expired, or was
-- settled)}; what: 1, or 2 another epoch.
read_ledger({})
if is_other_epoch() then
  return {2}
end
local reply = {1}
for i = 3, #given do
  local open = redis.call('HEXISTS', KEYS[2], given[i]) == 1
  if open then
    redis.call('ZADD', KEYS[3], now_ms + given[2], given[i])
  end
  reply[#reply + 1] = open and 1 or 0
end
return reply
