-- Counters of one subject, shared by the scripts below it. Units: microseconds and requests.
--
-- All counters of a subject are one string, little-endian: when the last of them expires, in epoch
-- seconds of the server's clock (4 bytes), then a record of 32 bytes for each:
--   counter id (8), when it expires (4), time of the last charge (8), current (4), previous (8)
-- with the meaning of core.algorithms.CounterState. The log algorithm keeps its times in a list
-- beside it, and its record so that a reset finds the list. Every number is an exact integer below
-- 2^53; products that could pass it go through muldiv.
--
-- A server makes each function of a script anew whenever it runs it, and that and a table for each
-- counter took longer than all arithmetic. So what every charge needs is not a function: it stands
-- in settle.lua and record.lua, and is put into the scripts where they say so.

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

-- A subject's value, an empty one when it is none of ours: then its counters start anew.
local function intact(value)
  if value and #value >= FIRST and (#value - FIRST + 1) % RECORD_SIZE == 0 then return value end
  return EMPTY
end

local function list_key(value_key, id)
  return value_key .. ':' .. string.gsub(id, '.', function(c) return string.format('%02x', string.byte(c)) end)
end

-- What a log has in its list: its key, how many entries, how many of them have left the window,
-- and the newest time of the others. They are found by doubling steps, then by halving.
local function read_log(value_key, id, left)
  local key = list_key(value_key, id)
  local function gone(index) return tonumber(call('LINDEX', key, index)) <= left end
  local length, low, high = call('LLEN', key), 0, 0
  if length > 0 and gone(0) then
    high = 1
    while high < length and gone(high) do low, high = high, high * 2 end
    if high > length then high = length end
    while high - low > 1 do
      local middle = floor((low + high) / 2)
      if gone(middle) then low = middle else high = middle end
    end
  end
  local newest = length > high and tonumber(call('LINDEX', key, -1)) or 0
  return {key = key, length = length, expired = high, newest = newest, added = 0}
end

-- Write a subject's value, whose last counter expires then. Where one was added, those that have
-- expired are left out, so that a subject costs only what it still uses.
local function save(value_key, value, expires, has_grown, seconds)
  local before = unpack_from('<I4', value)
  if before > expires then expires = before end
  local records = has_grown and '' or sub(value, FIRST)
  for at = FIRST, has_grown and #value or 0, RECORD_SIZE do
    local _, last_second = unpack_from('<c8I4', value, at)
    if last_second > seconds then records = records .. sub(value, at, at + RECORD_SIZE - 1) end
  end
  call('SET', value_key, pack('<I4', expires) .. records, 'EX', expires - seconds)
end
