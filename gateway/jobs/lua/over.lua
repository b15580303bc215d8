-- A batch comes to an end: the first to say how is heard.
-- KEYS: record; ARGV: how ('' : as its lines say; 'cancelling': its client wants it), errors or ''
-- Returns its state.
local now = now_ms()
local what = mode(now)
if what == 'gone' then
  return ''
end
if what ~= 'over' then
  local how = ARGV[1]
  if how == '' then
    local expired = tonumber(redis.call('HGET', KEYS[1], 'expired') or '0')
    how = what == 'cancelling' and 'cancelled' or (expired > 0 and 'expired' or 'completed')
    if how == 'completed' then
      enter('finalizing', now)
    end
  end
  if ARGV[2] ~= '' then
    redis.call('HSET', KEYS[1], 'errors', ARGV[2])
  end
  if not (how == 'cancelling' and what == 'cancelling') then
    enter(how, now)
  end
end
return redis.call('HGET', KEYS[1], 'state')
