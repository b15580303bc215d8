-- Extend the leases of holds that are still in use.
--
-- ARGV: lease ms, then for each hold: id, epoch and record as `hold` returned them.
-- Returns {epoch, then for each hold 1 (its lease runs on) or 0 (it expired, or was settled)}.

local lease_until = now_ms + tonumber(ARGV[1])
local epoch = epoch_now()
local reply = {epoch}
for i = 2, #ARGV, 3 do
  local id = ARGV[i]
  local open = redis.call('HEXISTS', KEYS[2], id) == 1
  if not open and ARGV[i + 1] ~= epoch and not is_closed(id) then
    -- The store was emptied since: what is held is put back.
    local record = cmsgpack.unpack(ARGV[i + 2])
    for _, limit in ipairs(record.limits) do
      add(limit[1], limit[2], in_unit(limit[3], record.tokens, record.nanousd))
    end
    redis.call('HSET', KEYS[2], id, ARGV[i + 2])
    open = true
  end
  if open then
    redis.call('ZADD', KEYS[3], lease_until, id)
  end
  reply[#reply + 1] = open and 1 or 0
end
return reply
