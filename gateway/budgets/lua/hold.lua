-- Take the worst case from every limit and rate, or from none.
--
-- ARGV: id, lease ms, input tokens, output tokens wanted, fewest output tokens, cost of the input (nanousd),
--       price of an output token (nanousd: whole part, and the millionths that are left), feature,
--       rate: requests (0: none), tokens (0: none), seconds; then for each limit: field, window, unit, amount.
-- Returns {what, detail, output tokens, epoch, record, now (s),
--          requests left (-1: no rate), full again in (ms), tokens left (-1), full again in (ms),
--          then for each limit: left, end of its window (s)}
--   what: "held"; "spent" (detail: index of the limit, from 0); "rate" (detail: wait, ms); "large" (no wait would help);
--         "closed" (this id was given up before it came here).

local id = ARGV[1]
local input, output, fewest = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local input_cost, price, price_millionths = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local rate_requests, rate_tokens, rate_us = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12]) * 1000000
local FIRST_LIMIT = 13

if is_closed(id) then
  return {'closed', 0, 0, '', '', now_s, -1, 0, -1, 0}
end
expire_leases()

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

local fields = {'rate:requests', 'rate:tokens'}
for i = FIRST_LIMIT, #ARGV, 4 do
  fields[#fields + 1] = ARGV[i]
end
local values = redis.call('HMGET', KEYS[1], unpack(fields))
local requests_level = rate_requests > 0 and level_now(values[1], rate_requests / rate_us) or 0
local tokens_level = rate_tokens > 0 and level_now(values[2], rate_tokens / rate_us) or 0

local limits = {}
local spent_out = -1 -- the limit that leaves too little; of several the one that lasts longest
for i = FIRST_LIMIT, #ARGV, 4 do
  local limit = {field = ARGV[i], unit = ARGV[i + 2], amount = tonumber(ARGV[i + 3])}
  limit.spent, limit.start = spent_in(values[#limits + 3], (window(ARGV[i + 1], now_s)))
  local _, over = window(ARGV[i + 1], limit.start)
  limit.over = over
  limits[#limits + 1] = limit
end

local packed = redis.call('HGET', KEYS[2], id)
local what, detail = 'held', 0
if packed then
  output = cmsgpack.unpack(packed).output -- this very call ran before; nothing is taken twice
else
  for index, limit in ipairs(limits) do
    local room = limit.amount - limit.spent
    local most
    if limit.unit == 'tokens' then
      most = room - input
    else
      most = affordable(output, room - input_cost)
    end
    if most < fewest and (spent_out < 0 or limit.over > limits[spent_out + 1].over) then
      spent_out = index - 1
    end
    output = math.min(output, most)
  end
  if spent_out >= 0 then
    what, detail = 'spent', spent_out
  else
    if rate_tokens > 0 then
      output = math.min(output, rate_tokens - input) -- more than this no wait would allow
    end
    if output < fewest then
      what = 'large'
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
        what, detail = 'rate', math.ceil(wait_us / 1000)
      end
    end
  end
end

local epoch = ''
if what == 'held' then
  epoch = epoch_now()
end
if what == 'held' and not packed then
  local tokens, nanousd = input + output, input_cost + output_cost(output)
  local record = {tokens = tokens, nanousd = nanousd, input = input, output = output, taken_us = now_us,
    feature = ARGV[9], drain_us = 0, limits = {}}
  local writes = {}
  for _, limit in ipairs(limits) do
    limit.spent = limit.spent + in_unit(limit.unit, tokens, nanousd)
    writes[#writes + 1] = limit.field
    writes[#writes + 1] = whole(limit.start) .. ' ' .. whole(limit.spent)
    record.limits[#record.limits + 1] = {limit.field, limit.start, limit.unit}
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
  if #writes > 0 then
    redis.call('HSET', KEYS[1], unpack(writes))
  end
  redis.call('HSET', KEYS[2], id, packed)
  redis.call('ZADD', KEYS[3], now_ms + tonumber(ARGV[2]), id)
end

local reply = {what, detail, output, epoch, packed or '', now_s, -1, 0, -1, 0}
if rate_requests > 0 then
  reply[7], reply[8] = math.max(0, rate_requests - requests_level), requests_level / rate_requests * rate_us / 1000
end
if rate_tokens > 0 then
  reply[9], reply[10] = math.max(0, rate_tokens - tokens_level), tokens_level / rate_tokens * rate_us / 1000
end
for _, limit in ipairs(limits) do
  reply[#reply + 1] = math.max(0, limit.amount - limit.spent)
  reply[#reply + 1] = limit.over
end
return reply
