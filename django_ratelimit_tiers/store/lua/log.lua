-- Read the list of a log. Put in after settle.lua, where `value_key` is known. Gives `log`: its
-- key, how many entries it has, how many of them have left the window, and the newest of the
-- others. They are found by doubling steps, then by halving.
-- @list
local length, low, high = call('LLEN', list), 0, 0
local function gone(index) return tonumber(call('LINDEX', list, index)) <= time - window end
if length > 0 and gone(0) then
  high = 1
  while high < length and gone(high) do low, high = high, high * 2 end
  if high > length then high = length end
  while high - low > 1 do
    local middle = (low + high - (low + high) % 2) / 2
    if gone(middle) then low = middle else high = middle end
  end
end
local newest = length > high and tonumber(call('LINDEX', list, -1)) or 0
log = {key = list, length = length, expired = high, newest = newest, added = 0}
