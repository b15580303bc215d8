-- Take the worst case from every limit and rate, or from none.
--
-- given: epoch, id, lease ms, input tokens, output tokens wanted, fewest output tokens, cost of the input (nanousd),
--        price of an output token (nanousd: whole part, and the millionths that are left), feature,
--        rate: requests (0: none), tokens (0: none), seconds; 1 if it fails open; what is known of the server ('', 'young': it
--        has just started, 'local': only this machine uses it); then the limits.
-- Returns {what, detail, output tokens, epoch, record, now (ms), seq,
--          requests left (-1: no rate), full again in (ms), tokens left (-1), full again in (ms),
--          then for each limit: start of its window (s), spent, end of its window (s)}
--   what: 0 held; 1 spent (detail: index of the limit, from 0); 2 rate (detail: wait, ms); 3 large (no wait would help);
--         4 closed (this id was given up before it came here); 5 another epoch; 6 the windows are none of now;
--         7 wait (detail: ms) until all gateways have said what they know.
-- A record: tokens, nanousd, input, output, feature, taken_us, drain_us (of the rate), recalled (its amounts were told by
--   a gateway), limits {{field, unit, start, till}, …}.

local HELD, SPENT, RATE, LARGE, CLOSED, EPOCH, WINDOWS, WAIT = 0, 1, 2, 3, 4, 5, 6, 7
local id, lease_ms = given[2], given[3]
local input, output, fewest = given[4], given[5], given[6]
local input_cost, price, price_millionths, feature = given[7], given[8], given[9], given[10]
local rate_requests, rate_tokens, rate_us = given[11], given[12], given[13] * 1000000
local terms = given[16]

local fields = {'rate:requests', 'rate:tokens'}
for i, limit in ipairs(terms) do
  fields[i + 2] = limit[1]
end
local values = read_ledger(fields)
local other_epoch = is_other_epoch(given[15])
local function refused(what, detail)
  return {what, detail, 0, epoch, '', now_ms, seq, -1, 0, -1, 0}
end
if other_epoch then
  return refused(EPOCH, 0)
end
if now_ms < opens_ms and given[14] == 0 then
  return refused(WAIT, opens_ms - now_ms)
end
if is_closed(id) then
  return refused(CLOSED, 0)
end

-- Exact below 2^53, for the millionths of a nano-dollar are summed apart; rounded up.
local function output_cost(tokens)
  return tokens * price + math.ceil(tokens * price_millionths / 1000000)
end

-- The most output tokens that cost no more than `money`, up to `tokens`.
local function affordable(tokens, money)
  if money < 0 then
    return -1
  end
  if output_cost(tokens) <= money then
    return tokens
  end
  local guess = math.floor(money / (price + price_millionths / 1000000))
  while output_cost(guess) > money do
    guess = guess - 1
  end
  while output_cost(guess + 1) <= money do
    guess = guess + 1
  end
  return guess
end

local requests_level = rate_requests > 0 and level_now(values[1], rate_requests / rate_us) or 0
local tokens_level = rate_tokens > 0 and level_now(values[2], rate_tokens / rate_us) or 0

local counters = {}
local spent_out = -1 -- the limit that leaves too little; of several the one that lasts longest
for i, limit in ipairs(terms) do
  local counter = counter_of(limit, values[i + 2])
  if not counter then
    return refused(WINDOWS, 0)
  end
  counters[i] = counter
end

local packed = redis.call('HGET', KEYS[2], id)
local what, detail = HELD, 0
if packed then
  output = cmsgpack.unpack(packed).output -- this very call ran before; nothing is taken twice
else
  local wanted = output -- each limit is asked alone: what another one lacks is not this one's lack
  for index, counter in ipairs(counters) do
    local room = counter.amount - counter.spent
    local most
    if counter.unit == 'tokens' then
      most = room - input
    else
      most = affordable(wanted, room - input_cost)
    end
    if most < fewest and (spent_out < 0 or counter.over > counters[spent_out + 1].over) then
      spent_out = index - 1
    end
    output = math.min(output, most)
  end
  if spent_out >= 0 then
    what, detail = SPENT, spent_out
  else
    if rate_tokens > 0 then
      output = math.min(output, rate_tokens - input) -- more than this no wait would allow
    end
    if output < fewest then
      what = LARGE
    else
      -- A millionth of a request or token is tolerance for what doubles lose.
      local wait_us = 0
      if rate_requests > 0 and requests_level + 1 > rate_requests + 0.000001 then
        wait_us = (requests_level + 1 - rate_requests) / rate_requests * rate_us
      end
      if rate_tokens > 0 and tokens_level + input + output > rate_tokens + 0.000001 then
        wait_us = math.max(wait_us, (tokens_level + input + output - rate_tokens) / rate_tokens * rate_us)
      end
      if wait_us > 0 then
        what, detail = RATE, math.ceil(wait_us / 1000)
      end
    end
  end
end

if what == HELD and not packed then
  local tokens, nanousd = input + output, input_cost + output_cost(output)
  local record = {tokens = tokens, nanousd = nanousd, input = input, output = output, taken_us = now_us,
    feature = feature, drain_us = 0, limits = {}}
  seq = seq + 1
  local writes = {'seq', whole(seq)}
  for _, counter in ipairs(counters) do
    writes[#writes + 1] = counter.field
    writes[#writes + 1] = counter_text(counter, in_unit(counter.unit, tokens, nanousd))
    record.limits[#record.limits + 1] = {counter.field, counter.unit, counter.start, counter.till}
  end
  if rate_requests > 0 then
    requests_level = requests_level + 1
    writes[#writes + 1] = 'rate:requests'
    writes[#writes + 1] = level_text(requests_level)
  end
  if rate_tokens > 0 then
    tokens_level = tokens_level + tokens
    record.drain_us = rate_tokens / rate_us
    writes[#writes + 1] = 'rate:tokens'
    writes[#writes + 1] = level_text(tokens_level)
  end
  packed = cmsgpack.pack(record)
  redis.call('HSET', KEYS[1], unpack(writes))
  redis.call('HSET', KEYS[2], id, packed)
  redis.call('ZADD', KEYS[3], now_ms + lease_ms, id)
end

local reply = {what, detail, output, epoch, packed or '', now_ms, seq, -1, 0, -1, 0}
if rate_requests > 0 then
  reply[8], reply[9] = math.max(0, rate_requests - requests_level), requests_level / rate_requests * rate_us / 1000
end
if rate_tokens > 0 then
  reply[10], reply[11] = math.max(0, rate_tokens - tokens_level), tokens_level / rate_tokens * rate_us / 1000
end
for _, counter in ipairs(counters) do
  reply[#reply + 1] = counter.start
  reply[#reply + 1] = counter.spent
  reply[#reply + 1] = counter.over
end
return reply
