-- Book what a hold really cost, in the windows in which it was taken. Only the first settlement of an id does anything.
--
-- given: epoch, id, tokens, nanousd, input tokens, output tokens, estimated (0 or 1), 1 if it may have been booked
--        before, epoch and seq of the hold (both empty: `hold` was not heard, give the id up), the fields of its limits.
-- ARGV[3]: the hold's record; may be left out at first.
-- Returns {what, epoch, now (ms), seq, then for each limit of the record: start, spent}
--   what: 1 booked; 0 there was nothing to do (settled before, or expired); 2 another epoch; 3 send the record.

local id, tokens, nanousd = given[2], given[3], given[4]
local charge = {given[3], given[4], given[5], given[6], given[7]}
local maybe, taken_in, taken_seq = given[8] == 1, given[9], given[10]

local values = read_ledger(given[11])
if is_other_epoch() then
  return {2, epoch, now_ms, seq}
end

-- True when a gateway told of something that this server had lost, after the hold was taken: it may hold the charge already.
local function may_be_told()
  local ended = ended_epochs()[taken_in] or 0
  for _, base in pairs(cmsgpack.unpack(redis.call('HGET', KEYS[1], 'bases'))) do
    if base[1] > ended or (base[4] or 0) > 0 then
      return true
    end
  end
  return false
end

local packed = redis.call('HGET', KEYS[2], id)
if packed then
  local only_more = maybe and taken_in ~= epoch and may_be_told() -- rather too much than too little
  local record = cmsgpack.unpack(packed)
  redis.call('HDEL', KEYS[2], id)
  redis.call('ZREM', KEYS[3], id)
  seq = seq + 1
  local reply, at, writes = {1, epoch, now_ms, seq}, {}, {'seq', seq}
  for index, limit in ipairs(record.limits) do
    local field, start, till = limit[1], limit[3], limit[4]
    local reserved = in_unit(limit[2], record.tokens, record.nanousd)
    local difference = in_unit(limit[2], tokens, nanousd) - reserved
    if only_more then
      difference = math.max(0, difference)
    end
    local value = values[index]
    if field ~= given[11][index] then -- another gateway's version took it
      value = redis.call('HGET', KEYS[1], field)
    end
    local begun, spent, text = changed_by(value, field, start, till, difference)
    if text then
      writes[#writes + 1], writes[#writes + 2] = field, text
    end
    reply[#reply + 1], reply[#reply + 2] = begun, spent
    at[#at + 1] = {field, start, till, record.recalled and difference or reserved + difference}
  end
  redis.call('HSET', KEYS[1], unpack(writes))
  if record.drain_us > 0 and tokens ~= record.tokens then
    -- Given back is only what cannot have drained since: so the level is never lower than if the charge had been known.
    local back = record.tokens - tokens
    if back > 0 then
      back = math.max(0, back - (now_us - record.taken_us) * record.drain_us)
    end
    if back ~= 0 then
      local level = level_now(redis.call('HGET', KEYS[1], 'rate:tokens'), record.drain_us)
      redis.call('HSET', KEYS[1], 'rate:tokens', level_text(math.max(0, level - back)))
    end
  end
  note_usage(id, 'settled', record.feature, record.taken_us, charge, at)
  return reply
end
if taken_in == '' then
  close(id) -- should `hold` still be under way to the server, it comes too late
  return {0, epoch, now_ms, seq}
end
if taken_in == epoch or has_heard(taken_in, taken_seq) or is_closed(id) then
  return {0, epoch, now_ms, seq} -- this server had it, and has ended it
end
if not ARGV[3] then
  return {3, epoch, now_ms, seq}
end
-- The server lost it. What it reserved is part of what its gateway told.
close(id)
local record = cmsgpack.unpack(ARGV[3])
changed()
local reply, at = {1, epoch, now_ms, seq}, {}
for _, limit in ipairs(record.limits) do
  local difference = in_unit(limit[2], tokens, nanousd) - in_unit(limit[2], record.tokens, record.nanousd)
  if maybe then
    difference = 0 -- what was told may hold the charge already: rather too much than too little
  end
  reply[#reply + 1], reply[#reply + 2] = add(limit[1], limit[3], limit[4], difference)
  at[#at + 1] = {limit[1], limit[3], limit[4], difference}
end
note_usage(id, 'restored', record.feature, record.taken_us, charge, at)
return reply
