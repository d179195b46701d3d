-- What a charge leaves: core.algorithms.standing. Put in after settle.lua, where `capacity` is known
-- and the counter is as the reply tells it. Gives `remaining`, and the microseconds to the full quota
-- as `reset_after`.
local remaining, reset_after = capacity - current - part, 0
if remaining < 0 then remaining = 0 end
if algorithm == BUCKET then
  local a, b, p = current, window, limit
  -- @muldiv
  rest = rest + previous
  reset_after = quotient + (rest - rest % limit) / limit
  if rest % limit > 0 then reset_after = reset_after + 1 end
  if reset_after > FOREVER then reset_after = FOREVER end
elseif algorithm == LOG then
  if current > 0 then reset_after = previous + window - time end
elseif current > 0 or part > 0 then
  reset_after = window - time % window
  if algorithm == SLIDING then
    -- A count weighs nothing any more that much before its next window ends: window / count, rounded
    -- up, and less 1.
    local count = previous
    if current > 0 then reset_after, count = reset_after + window, current end
    local over = window % count
    reset_after = reset_after + 1 - (window - over) / count
    if over > 0 then reset_after = reset_after - 1 end
  end
end
