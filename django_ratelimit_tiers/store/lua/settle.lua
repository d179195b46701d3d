-- Load a counter and bring it to the present: core.algorithms.settle. Put in where `now` and `from`
-- are known, and `algorithm`, `limit` and `window` of the charge. Gives the counter's `time`,
-- `current` and `previous`, and `part`, what is used beyond `current`: the weight of a sliding
-- window's previous count, 1 for the fraction of a token.
local last, current, previous = now, 0, 0
if from then last, current, previous = unpack_from('<I8I4I8', value, from + 12) end
local time, part = now, 0
if last > now then time = last end
if algorithm == BUCKET then
  local a, b, p = limit, time - last, window
  -- @muldiv
  current, previous = current - quotient, previous - rest
  if previous < 0 then current, previous = current - 1, previous + window end
  if current < 0 then current, previous = 0, 0 end
  if previous > 0 then part = 1 end
elseif algorithm ~= LOG then
  local start = time - time % window
  if last < start - window then current, previous = 0, 0
  elseif last < start then current, previous = 0, current end
  if algorithm == FIXED then previous = 0
  elseif previous > 0 then
    local a, b, p = previous, start + window - time, window
    -- @muldiv
    part = quotient
  end
end
