-- Put the sample KEYS[1] aside as KEYS[2], unless an earlier one is still there. Reply: the length of
-- what is there now.
if redis.call('EXISTS', KEYS[2]) == 0 and redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('RENAME', KEYS[1], KEYS[2])
end
local length = redis.pcall('LLEN', KEYS[2])
if type(length) == 'number' then return length end
redis.call('DEL', KEYS[2])  -- somebody else's value gives way
return 0
