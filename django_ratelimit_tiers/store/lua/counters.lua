-- Counters of one subject, shared by the scripts below it. Units: microseconds and requests.
--
-- All counters of a subject are one string, little-endian: when the last of them expires, in epoch
-- seconds of the server's clock (4 bytes), then a record of 32 bytes for each:
--   counter id (8), when it expires (4), time of the last charge (8), current (4), previous (8)
-- with the meaning of core.algorithms.CounterState. The log algorithm keeps its times in a list
-- beside it, and its record so that a reset finds the list. Every number is an exact integer below
-- 2^53; products that could pass it go through muldiv.
--
-- A server makes each function of a script anew whenever it runs it: that, and a table for each
-- counter, took longer than all arithmetic. So what several scripts do is no function but stands
-- in a file of its own, and is put in where they say `-- @file`; what few calls need is within the
-- branch that needs it.

local RECORD, RECORD_SIZE, FIRST, EMPTY = '<c8I4I8I4I8', 32, 5, '\0\0\0\0'
local FOREVER, LAST_SECOND = 9007199254740991, 4294967295
local FIXED, LOG, SLIDING, BUCKET = 1, 2, 3, 4
local LEAST_TTL = 60

local call, pack, unpack_from = redis.call, struct.pack, struct.unpack
local floor, ceil, sub, find = math.floor, math.ceil, string.sub, string.find

-- The quotient and remainder of a * b / p, exact; a < 2^30, p < 2^45. Where the product would not
-- be an exact double it is built from digits of 7 bits of a.
local function muldiv(a, b, p)
  local product = a * b
  if product <= FOREVER then
    local quotient = floor(product / p)
    return quotient, product - quotient * p
  end
  local whole = floor(b / p)
  b = b - whole * p
  local quotient, rest, scale = 0, 0, 1
  while scale * 128 <= a do scale = scale * 128 end
  while scale >= 1 do
    local part = rest * 128 + floor(a / scale) % 128 * b
    local digit = floor(part / p)
    quotient, rest = quotient * 128 + digit, part - digit * p
    scale = scale / 128
  end
  return a * whole + quotient, rest
end
