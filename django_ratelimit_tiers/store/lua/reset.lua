-- Forget everything that a subject has used.
--
-- KEYS[1]  the subject's counters
-- Reply: how many keys were deleted.

local keys, value = {KEYS[1]}, intact(call('GET', KEYS[1]))
for at = FIRST, #value, RECORD_SIZE do
  keys[#keys + 1] = list_key(KEYS[1], sub(value, at, at + 7))
end
return call('DEL', unpack(keys))
