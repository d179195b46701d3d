-- Load a counter and bring it to the present: core.algorithms.settle. Put in where `value`, `id`,
-- `algorithm`, `limit`, `window` and `now` are known. Gives `from`, the place of its record if it
-- has one, its `time`, `current` and `previous`, and `part`, what is used beyond `current`: the
-- weight of a sliding window's previous count, 1 for the fraction of a token.
local from = find(value, id, FIRST, true)
while from and (from - FIRST) % RECORD_SIZE ~= 0 do from = find(value, id, from + 1, true) end
local time, current, previous, part = now, 0, 0, 0
if from then
  local _, _, last, last_current, last_previous = unpack_from(RECORD, value, from)
  current, previous = last_current, last_previous
  if last > now then time = last end
  if algorithm == BUCKET then
    local whole, fraction = muldiv(limit, time - last, window)
    current, previous = current - whole, previous - fraction
    if previous < 0 then current, previous = current - 1, previous + window end
    if current < 0 then current, previous = 0, 0 end
    if previous > 0 then part = 1 end
  elseif algorithm ~= LOG then
    local passed = floor(time / window) - floor(last / window)
    if passed == 1 then current, previous = 0, current
    elseif passed > 1 then current, previous = 0, 0 end
    if algorithm == FIXED then previous = 0
    elseif previous > 0 then part = muldiv(previous, window - time % window, window) end
  end
end
