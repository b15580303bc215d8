-- Book what a hold really cost, in the windows in which it was taken. Only the first settlement of an id does anything.
--
-- ARGV: id, epoch and record as `hold` returned them (both empty: `hold` was not heard, give the id up),
--       tokens, nanousd, input tokens, output tokens, estimated (0 or 1).
-- Returns 1 when it was booked, 0 when there was nothing to do (settled before, or expired).

local id, epoch, given = ARGV[1], ARGV[2], ARGV[3]
local tokens, nanousd = tonumber(ARGV[4]), tonumber(ARGV[5])

local packed = redis.call('HGET', KEYS[2], id)
if packed then
  local record = cmsgpack.unpack(packed)
  redis.call('HDEL', KEYS[2], id)
  redis.call('ZREM', KEYS[3], id)
  for _, limit in ipairs(record.limits) do
    add(limit[1], limit[2], in_unit(limit[3], tokens, nanousd) - in_unit(limit[3], record.tokens, record.nanousd))
  end
  if record.drain_us > 0 and tokens < record.tokens then
    -- Given back is only what cannot have drained since: so the level is never lower than if the charge had been known.
    local back = record.tokens - tokens - (now_us - record.taken_us) * record.drain_us
    if back > 0 then
      local level = level_now(redis.call('HGET', KEYS[1], 'rate:tokens'), record.drain_us)
      redis.call('HSET', KEYS[1], 'rate:tokens', level_text(math.max(0, level - back)))
    end
  end
  note_usage(id, 'settled', record, tokens, nanousd, ARGV[6], ARGV[7], ARGV[8])
  return 1
end
if given == '' then
  close(id) -- should `hold` still be under way to the server, it comes too late
  return 0
end
if epoch_now() == epoch or is_closed(id) then
  return 0
end
close(id)
local record = cmsgpack.unpack(given)
for _, limit in ipairs(record.limits) do
  add(limit[1], limit[2], in_unit(limit[3], tokens, nanousd))
end
note_usage(id, 'restored', record, tokens, nanousd, ARGV[6], ARGV[7], ARGV[8])
return 1
