-- The `quotient` and the `rest` of a * b / p, exact; a < 2^30, p < 2^45. Where the product would not
-- be an exact double it is built from digits of 7 bits of a.
local product, quotient, rest = a * b
if product <= FOREVER then
  rest = product % p
  quotient = (product - rest) / p
else
  local scale, left = 1, b % p
  quotient, rest = 0, 0
  while scale * 128 <= a do scale = scale * 128 end
  while scale >= 1 do
    local part = rest * 128 + math.floor(a / scale) % 128 * left
    rest = part % p
    quotient, scale = quotient * 128 + (part - rest) / p, scale / 128
  end
  quotient = quotient + a * ((b - left) / p)
end
