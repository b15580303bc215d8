-- End holds whose gateway is dead, at most 100 in one call; and fold the oldest entries of a long usage log into what
-- is carried. given: epoch. Returns how many holds ended.
local ended = expire_leases()

if redis.call('XLEN', KEYS[4]) > LOG_ENTRIES + FOLD_AT_ONCE then
  local entries = redis.call('XRANGE', KEYS[4], '-', '+', 'COUNT', FOLD_AT_ONCE)
  local sums, ids = {}, {}
  for _, entry in ipairs(entries) do
    ids[#ids + 1] = entry[1]
    local words = entry[2]
    for i = 1, #words, 2 do
      if words[i] == 'at' then
        for _, booked in ipairs(cmsgpack.unpack(words[i + 1])) do
          if booked[3] > now_s then
            local name = booked[1] .. '@' .. whole(booked[2])
            sums[name] = {(sums[name] or {0})[1] + booked[4], booked[3]}
          end
        end
      end
    end
  end
  local carried = redis.call('HGETALL', KEYS[6])
  for i = 1, #carried, 2 do
    local amount, till = string.match(carried[i + 1], '^(%-?%d+) (%d+)$')
    if tonumber(till) <= now_s then
      redis.call('HDEL', KEYS[6], carried[i])
    elseif sums[carried[i]] then
      sums[carried[i]][1] = sums[carried[i]][1] + tonumber(amount)
    end
  end
  for name, sum in pairs(sums) do
    redis.call('HSET', KEYS[6], name, whole(sum[1]) .. ' ' .. whole(sum[2]))
  end
  redis.call('XDEL', KEYS[4], unpack(ids))
end
return ended
