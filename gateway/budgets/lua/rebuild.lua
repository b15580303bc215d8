-- Make the counters anew from the usage log, what is carried of its older part, and the open holds; one step, so that
-- gateways may go on. given: epoch, 1 to write (else only say). Returns {field, start, spent before, spent now, …}.
read_ledger({})
local sums = {}
local function count(field, start, till, amount)
  if till > now_s then
    sums[field] = sums[field] or {}
    sums[field][start] = (sums[field][start] or 0) + amount
  end
end

local carried = redis.call('HGETALL', KEYS[6])
for i = 1, #carried, 2 do
  local field, start = string.match(carried[i], '^(.*)@(%d+)$')
  local amount, till = string.match(carried[i + 1], '^(%-?%d+) (%d+)$')
  count(field, tonumber(start), tonumber(till), tonumber(amount))
end
for _, entry in ipairs(redis.call('XRANGE', KEYS[4], '-', '+')) do
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'at' then
      for _, booked in ipairs(cmsgpack.unpack(entry[2][i + 1])) do
        count(unpack(booked))
      end
    end
  end
end
for _, packed in ipairs(redis.call('HVALS', KEYS[2])) do
  local record = cmsgpack.unpack(packed)
  for _, limit in ipairs(record.limits) do
    local amount = record.recalled and 0 or in_unit(limit[2], record.tokens, record.nanousd)
    count(limit[1], limit[3], limit[4], amount)
  end
end

local all, names = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #all, 2 do
  if string.match(all[i], '^tokens:') or string.match(all[i], '^nanousd:') then
    names[all[i]] = all[i + 1]
  end
end
for field in pairs(sums) do
  names[field] = names[field] or false
end

local reply = {}
for field, value in pairs(names) do
  local before, start, spent, text = 0, 0, 0, nil
  local parts = sums[field] or {}
  if is_rolling(field) then
    before = value and sum_of(cmsgpack.unpack(value)) or 0
    local starts, buckets = {}, {}
    for part in pairs(parts) do
      starts[#starts + 1] = part
    end
    table.sort(starts)
    for _, part in ipairs(starts) do
      buckets[#buckets + 1], buckets[#buckets + 2] = part, math.max(0, parts[part])
      start, spent = part, spent + math.max(0, parts[part])
    end
    text = cmsgpack.pack(buckets)
  else
    for part, amount in pairs(parts) do
      if part > start then
        start, spent = part, math.max(0, amount)
      end
    end
    if value then
      local begun, counted = string.match(value, '^(%d+) (%d+)$')
      before = tonumber(counted)
      if tonumber(begun) > start then
        start, spent = tonumber(begun), 0
      end
    end
    text = whole(start) .. ' ' .. whole(spent)
  end
  if given[2] == 1 then
    redis.call('HSET', KEYS[1], field, text)
  end
  for _, word in ipairs({field, start, before, spent}) do
    reply[#reply + 1] = word
  end
end
if given[2] == 1 and epoch ~= '' then
  changed()
end
return reply
