-- Load a counter and bring it to the present: core.algorithms.settle. Put in where `values`,
-- `place` and `now` are known, and `id`, `algorithm`, `limit` and `window` of a charge. Gives the
-- subject's `value`, `from`, where the counter's record stands in it if it has one, its `time`,
-- `current` and `previous`, and `part`, what is used beyond `current`: the weight of a sliding
-- window's previous count, 1 for the fraction of a token.
local value = values[place]
if not value or #value < FIRST or (#value - FIRST + 1) % RECORD_SIZE ~= 0 then value = EMPTY end
local from = find(value, id, FIRST, true)
while from and (from - FIRST) % RECORD_SIZE ~= 0 do from = find(value, id, from + 1, true) end
local time, current, previous, part = now, 0, 0, 0
if from then
  local last
  last, current, previous = unpack_from('<I8I4I8', value, from + 12)
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
