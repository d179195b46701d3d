-- Find a counter in its subject's value. Put in after subject.lua, where `id` of a charge is known.
-- Gives `from`, where its record stands if it has one.
local from = find(value, id, FIRST, true)
while from and (from - FIRST) % RECORD_SIZE ~= 0 do from = find(value, id, from + 1, true) end
