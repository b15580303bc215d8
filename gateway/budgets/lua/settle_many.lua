-- Book what open holds under the same limits really cost, many in one step: each as settle.lua does it for one. What is
-- not as plain as that (not open, told by a gateway, taken by another version) is left for settle.lua.
--
-- given: epoch, the fields of the limits, then for each hold: {id, tokens, nanousd, input tokens, output tokens, estimated
--        (0 or 1)}. None of them may have been booked before.
-- Returns {what, epoch, now (ms), seq, then for each field: start, spent (-1: nothing was booked there), then for each hold
-- 1 (booked) or 0 (left)}; what: 1, or 2 another epoch.

local fields = given[2]
local values = read_ledger(fields)
if is_other_epoch() then
  return {2, epoch, now_ms, seq}
end

local begun, spent, changes = {}, {}, {}
for index, value in ipairs(values) do -- of rolling windows the text is what is worked on
  if value and not is_rolling(fields[index]) then
    local start, sum = string.match(value, '^(%d+) (%d+)$')
    begun[index], spent[index] = tonumber(start), tonumber(sum)
  end
end

local function change(index, start, till, difference)
  if is_rolling(fields[index]) then
    begun[index], spent[index], values[index] = changed_by(values[index], fields[index], start, till, difference)
    changes[index] = true
    return
  end
  if not begun[index] or begun[index] < start then
    begun[index], spent[index] = start, 0
  end
  if begun[index] == start then
    spent[index] = math.max(0, spent[index] + difference)
    changes[index] = true
  end
end

local function is_plain(record)
  if not record or record.recalled or #record.limits ~= #fields then
    return false
  end
  for index, limit in ipairs(record.limits) do
    if limit[1] ~= fields[index] then
      return false
    end
  end
  return true
end

local ids, booked, notes, level = {}, {}, {}, nil
for i = 3, #given do
  ids[i - 2] = given[i][1]
end
local records, outcomes, seen = redis.call('HMGET', KEYS[2], unpack(ids)), {}, {}
for i, id in ipairs(ids) do
  local record = records[i] and not seen[id] and cmsgpack.unpack(records[i])
  seen[id] = true
  outcomes[i] = 0
  if is_plain(record) then
    outcomes[i] = 1
    booked[#booked + 1] = id
    local charge = given[i + 2]
    local tokens, nanousd, at = charge[2], charge[3], {}
    for index, limit in ipairs(record.limits) do
      local amount = in_unit(limit[2], tokens, nanousd)
      change(index, limit[3], limit[4], amount - in_unit(limit[2], record.tokens, record.nanousd))
      at[index] = {limit[1], limit[3], limit[4], amount}
    end
    notes[#notes + 1] = {id, record, charge, at}
    if record.drain_us > 0 and tokens ~= record.tokens then -- as in settle.lua
      local back = record.tokens - tokens
      if back > 0 then
        back = math.max(0, back - (now_us - record.taken_us) * record.drain_us)
      end
      level = level or level_now(redis.call('HGET', KEYS[1], 'rate:tokens'), record.drain_us)
      level = math.max(0, level - back)
    end
  end
end

if #booked > 0 then
  seq = seq + #booked
  local writes = {'seq', whole(seq)}
  for index in pairs(changes) do
    local text = values[index]
    if not is_rolling(fields[index]) then
      text = whole(begun[index]) .. ' ' .. whole(spent[index])
    end
    writes[#writes + 1], writes[#writes + 2] = fields[index], text
  end
  if level then
    writes[#writes + 1], writes[#writes + 2] = 'rate:tokens', level_text(level)
  end
  redis.call('HDEL', KEYS[2], unpack(booked))
  redis.call('ZREM', KEYS[3], unpack(booked))
  redis.call('HSET', KEYS[1], unpack(writes))
  for _, note in ipairs(notes) do
    local id, record, charge, at = unpack(note)
    note_usage(id, 'settled', record.feature, record.taken_us, {unpack(charge, 2)}, at)
  end
end

local reply = {1, epoch, now_ms, seq}
for index = 1, #fields do
  reply[#reply + 1], reply[#reply + 2] = changes[index] and begun[index] or -1, changes[index] and spent[index] or -1
end
for _, outcome in ipairs(outcomes) do
  reply[#reply + 1] = outcome
end
return reply
