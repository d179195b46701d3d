-- Forget everything that a subject has used.
--
-- KEYS[1]  the subject's counters
-- Reply: how many keys were deleted.

local keys = {KEYS[1]}
local value = intact(redis.call('GET', KEYS[1])) or ''
for at = FIRST, #value - RECORD_SIZE + 1, RECORD_SIZE do
  keys[#keys + 1] = list_key(KEYS[1], string.sub(value, at, at + 7))
end
return redis.call('DEL', unpack(keys))
