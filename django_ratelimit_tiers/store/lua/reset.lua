-- Forget everything that a subject has used.
--
-- KEYS[1]  the subject's counters
-- Reply: how many keys were deleted.

local value_key = KEYS[1]
local keys, value = {value_key}, call('GET', value_key)
if value and (#value - FIRST + 1) % RECORD_SIZE == 0 then
  for at = FIRST, #value, RECORD_SIZE do
    local id = sub(value, at, at + 7)
    -- @list
    keys[#keys + 1] = list
  end
end
return call('DEL', unpack(keys))
