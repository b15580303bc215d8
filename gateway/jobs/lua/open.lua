-- Make the group of those who read the queue, and forget members that are long gone and hold nothing.
-- KEYS: queue; ARGV: group, idle time in ms after which one is gone
redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
for _, member in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local fields = {}
  for index = 1, #member, 2 do
    fields[member[index]] = member[index + 1]
  end
  if fields.pending == 0 and fields.idle > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], fields.name)
  end
end
return 1
