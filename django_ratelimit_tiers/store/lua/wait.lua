-- How long a charge that does not fit has to wait: core.algorithms.wait. Put in after settle.lua,
-- where `cost`, `capacity` and the `log` are known. Gives `waiting`, from `time` on.
local function muldiv(a, b, p)
  -- @muldiv
  return quotient, rest
end
local to_window_end, waiting = window - time % window, window
local function weight_falls_to(count, most)
  if count <= most then return 0 end
  local quotient, rest = muldiv(most + 1, window, count)
  return window - (rest > 0 and quotient or quotient - 1)
end
if cost > capacity then
  waiting = window - (time - now)  -- it never passes, so what is told is not for the clock
elseif algorithm == BUCKET then
  local quotient, rest = muldiv(current + cost - capacity, window, limit)
  waiting = math.min(quotient + math.ceil((rest + previous) / limit), FOREVER)
elseif algorithm == FIXED then
  waiting = to_window_end
elseif algorithm == LOG then
  local index = log.expired + current + cost - limit - 1
  local entry = index < log.length and tonumber(call('LINDEX', log.key, index)) or time
  waiting = entry + window - time
elseif current + cost <= limit then
  waiting = weight_falls_to(previous, limit - cost - current) - time % window
else
  waiting = to_window_end + weight_falls_to(current, limit - cost)
end
