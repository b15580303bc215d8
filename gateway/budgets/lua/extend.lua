-- Reserve more for an open hold: another target costs more. All or nothing.
--
-- given: epoch, id, tokens, nanousd (what it reserves then; less than now changes nothing), then the limits of its hold.
-- Returns {what, detail, seq, now (ms), epoch, record, then for each limit: start, spent, end}
--   what: 0 extended; 1 spent (detail: index of the limit); 4 it is not open; 5 another epoch; 6 the windows are none of now.
local id, tokens, nanousd, terms = given[2], given[3], given[4], given[5]
read_ledger({})
if is_other_epoch() then
  return {5, 0, seq, now_ms, epoch, ''}
end
local packed = redis.call('HGET', KEYS[2], id)
if not packed then
  return {4, 0, seq, now_ms, epoch, ''}
end
local record = cmsgpack.unpack(packed)
tokens, nanousd = math.max(tokens, record.tokens), math.max(nanousd, record.nanousd)
local more_tokens, more_nanousd = tokens - record.tokens, nanousd - record.nanousd

local booked = {}
for _, limit in ipairs(record.limits) do
  booked[limit[1]] = limit
end
local counters = {}
for index, limit in ipairs(terms) do
  local counter = counter_of(limit, redis.call('HGET', KEYS[1], limit[1]))
  if not counter then
    return {6, 0, seq, now_ms, epoch, ''}
  end
  counters[index] = counter
  local at = booked[limit[1]]
  local counts = at and (counter.buckets or at[3] == counter.start) -- else its window is over: nobody's limit any more
  if counts and counter.spent + in_unit(limit[2], more_tokens, more_nanousd) > counter.amount then
    return {1, index - 1, seq, now_ms, epoch, ''}
  end
end
for _, limit in ipairs(record.limits) do
  add(limit[1], limit[3], limit[4], in_unit(limit[2], more_tokens, more_nanousd))
end
if record.drain_us > 0 and more_tokens > 0 then -- or its settlement would give back what was never taken
  local level = level_now(redis.call('HGET', KEYS[1], 'rate:tokens'), record.drain_us)
  redis.call('HSET', KEYS[1], 'rate:tokens', level_text(level + more_tokens))
end
if record.recalled then -- what comes on top was not told by anybody: it is booked by itself
  local at = {}
  for _, limit in ipairs(record.limits) do
    at[#at + 1] = {limit[1], limit[3], limit[4], in_unit(limit[2], more_tokens, more_nanousd)}
  end
  note_usage(id, 'extended', record.feature, record.taken_us, {more_tokens, more_nanousd, 0, 0, 1}, at)
end
record.tokens, record.nanousd = tokens, nanousd
packed = cmsgpack.pack(record)
redis.call('HSET', KEYS[2], id, packed)
changed()
local reply = {0, 0, seq, now_ms, epoch, packed}
for index, limit in ipairs(terms) do
  local counter = counter_of(limit, redis.call('HGET', KEYS[1], limit[1])) or counters[index]
  reply[#reply + 1] = counter.start
  reply[#reply + 1] = counter.spent
  reply[#reply + 1] = counter.over
end
return reply
