-- A gateway tells what it knows of an epoch that is over: for each counter the newest value that it was told.
--
-- given: epoch, then for each counter: {field, epoch, seq, start, spent, till}.
-- Returns {epoch, now (ms), seq, then for each counter: start, spent}.
local reply
read_ledger({})
if not is_other_epoch() then
  return {epoch, now_ms, seq}
end
local parent = redis.call('HGET', KEYS[1], 'parent') or ''
if parent == '' then -- gateways that knew nothing came first
  parent = given[1]
  opens_ms = now_ms + RECALL_MS
  redis.call('HSET', KEYS[1], 'parent', parent, 'opens', whole(opens_ms))
end
local bases = cmsgpack.unpack(redis.call('HGET', KEYS[1], 'bases'))
local function now_in(field, start)
  local value = redis.call('HGET', KEYS[1], field)
  if not value then
    return start, 0
  end
  if is_rolling(field) then
    return start, sum_of(cmsgpack.unpack(value))
  end
  local begun, spent = string.match(value, '^(%d+) (%d+)$')
  if tonumber(begun) < start then
    return start, 0
  end
  return tonumber(begun), tonumber(spent)
end

changed()
reply = {epoch, now_ms, seq}
for i = 2, #given do
  local field, told_in, told_seq, start, spent, till = unpack(given[i])
  local begun, current = now_in(field, start)
  local difference = 0
  if has_heard(told_in, told_seq) then
    difference = 0
  elseif told_in == parent then
    local base = bases[field] or {0, start, 0}
    if told_seq > base[1] then
      local raised = base[5] == start and base[4] or 0
      difference = spent - ((is_rolling(field) or base[2] == start) and base[3] or 0)
      if raised > 0 then -- gateways of an epoch before came first: what they told is part of this, or more
        local more = difference
        difference = math.max(0, more - raised)
        raised = math.max(0, raised - math.max(0, more))
      end
      bases[field] = {told_seq, start, spent, raised, start}
    end
  elseif told_in ~= epoch then
    difference = math.max(0, spent - current) -- of an epoch before: others may have told it already
    if difference > 0 and begun == start and till > now_s then
      local base = bases[field] or {0, start, 0}
      base[4], base[5] = (base[5] == start and base[4] or 0) + difference, start
      bases[field] = base
    end
  end
  if difference ~= 0 and begun == start and till > now_s then
    add(field, start, till, difference)
    local unit = string.match(field, '^%a+')
    note_usage('recalled', 'recalled', '', now_us,
      {in_unit(unit, difference, 0), in_unit(unit, 0, difference), 0, 0, 1}, {{field, start, till, difference}})
  end
  begun, current = now_in(field, start)
  reply[#reply + 1] = begun
  reply[#reply + 1] = current
end
redis.call('HSET', KEYS[1], 'bases', cmsgpack.pack(bases))
return reply
