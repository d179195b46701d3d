-- Counters of one subject, shared by the scripts below it. Units: microseconds and requests.
--
-- All counters of a subject are one string, little-endian: when the last of them expires, in epoch
-- seconds of the server's clock (4 bytes), then a record of 29 bytes for each:
--   counter id (8), when it expires (4), time of the last charge (7), current (4), previous (6)
-- with the meaning of core.algorithms.CounterState. The log algorithm keeps its times in a list
-- beside it, and its record so that a reset finds the list. Every number is an exact integer below
-- 2^53; products that could pass it go through muldiv.

local RECORD, RECORD_SIZE, FIRST = '<c8I4I7I4I6', 29, 5
local FOREVER = 9007199254740991
local FIXED, LOG, SLIDING, BUCKET = 1, 2, 3, 4
local LEAST_TTL = 60

local floor, max, min = math.floor, math.max, math.min

local function integer(number)
  return string.format('%.0f', number)
end

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

local function muldiv_up(a, b, p)
  local quotient, rest = muldiv(a, b, p)
  return rest > 0 and quotient + 1 or quotient
end

local function list_key(value_key, id)
  return value_key .. ':' .. string.gsub(id, '.', function(c) return string.format('%02x', string.byte(c)) end)
end

-- A subject's value, nil when it is none of ours: then its counters start anew.
local function intact(value)
  if value and #value >= FIRST and (#value - FIRST + 1) % RECORD_SIZE == 0 then return value end
  return nil
end

-- The position of a counter's record in a subject's value, nil when it has none.
local function find_record(value, id)
  local at = string.find(value, id, 1, true)
  while at and (at - FIRST) % RECORD_SIZE ~= 0 do at = string.find(value, id, at + 1, true) end
  return at
end

-- How many entries at the head of a list are at or before a time: doubling steps, then halving.
local function entries_until(key, length, time)
  local function gone(index) return tonumber(redis.call('LINDEX', key, index)) <= time end
  if length == 0 or not gone(0) then return 0 end
  local low, high = 0, 1
  while high < length and gone(high) do low, high = high, high * 2 end
  high = min(high, length)
  while high - low > 1 do
    local middle = floor((low + high) / 2)
    if gone(middle) then low = middle else high = middle end
  end
  return high
end

-- Load a counter and bring it to the present: core.algorithms.settle.
local function settle(value_key, value, id, algorithm, limit, window, now)
  local at = value and find_record(value, id)
  local counter = {id = id, algorithm = algorithm, window = window, limit = limit, at = at,
                   now = now, current = 0, previous = 0, weight = 0}
  if at then
    local _, _, last, current, previous = struct.unpack(RECORD, value, at)
    if last > now then now = last end
    counter.now = now
    if algorithm == BUCKET then
      local whole, fraction = muldiv(limit, now - last, window)
      current, previous = current - whole, previous - fraction
      if previous < 0 then current, previous = current - 1, previous + window end
      if current < 0 then current, previous = 0, 0 end
      counter.current, counter.previous = current, previous
    elseif algorithm ~= LOG then
      local passed = floor(now / window) - floor(last / window)
      if passed == 0 then counter.current, counter.previous = current, previous
      elseif passed == 1 then counter.previous = current end
      if algorithm == SLIDING and counter.previous > 0 then
        counter.weight = muldiv(counter.previous, window - now % window, window)
      end
    end
  end
  if algorithm == LOG then
    counter.list = list_key(value_key, id)
    counter.length = at and redis.call('LLEN', counter.list) or 0
    counter.expired = entries_until(counter.list, counter.length, now - window)
    counter.current = counter.length - counter.expired
    counter.added = 0
  end
  return counter
end

local function to_window_end(counter)
  return counter.window - counter.now % counter.window
end

local function weight_falls_to(counter, count, most)
  if count <= most then return 0 end
  return counter.window - (muldiv_up(most + 1, counter.window, count) - 1)
end

-- The time of the active entry with this number, counted from 0; those added now are the newest.
local function log_entry(counter, number)
  local index = counter.expired + number
  if index >= counter.length then return counter.now end
  return tonumber(redis.call('LINDEX', counter.list, index))
end

-- What is used and when all of it is back at this limit: core.algorithms.standing.
local function standing(counter, limit)
  local algorithm, current, window = counter.algorithm, counter.current, counter.window
  if algorithm == BUCKET then
    local wait, rest = muldiv(current, window, limit)
    wait = wait + math.ceil((rest + counter.previous) / limit)
    return counter.previous > 0 and current + 1 or current, min(wait, FOREVER)
  end
  if algorithm == FIXED then
    return current, current > 0 and to_window_end(counter) or 0
  end
  if algorithm == LOG then
    if current == 0 then return 0, 0 end
    return current, log_entry(counter, current - 1) + window - counter.now
  end
  local used = current + counter.weight
  if used == 0 then return 0, 0 end
  if current == 0 then
    return used, weight_falls_to(counter, counter.previous, 0) - counter.now % window
  end
  return used, to_window_end(counter) + weight_falls_to(counter, current, 0)
end

-- The records of a value that have not expired by the server's clock.
local function lasting(value, seconds)
  local kept = {}
  for at = FIRST, #value - RECORD_SIZE + 1, RECORD_SIZE do
    local record = string.sub(value, at, at + RECORD_SIZE - 1)
    local _, expires = struct.unpack('<c8I4', record)
    if expires > seconds then kept[#kept + 1] = record end
  end
  return table.concat(kept)
end

-- Write changed counters into their subject's value. Known ones are replaced where they stand; new
-- ones take the place of what has expired, so that a subject costs only what it still uses.
local function save(value_key, value, changed, seconds)
  local latest, added = 0, ''
  if value then latest = struct.unpack('<I4', value) end
  for i = 1, #changed do
    local counter = changed[i]
    local algorithm, lasts = counter.algorithm, counter.window
    local current, previous, at = counter.current, counter.previous, counter.at
    if algorithm == SLIDING then
      lasts = 2 * lasts
    elseif algorithm == BUCKET then
      local _, reset_after = standing(counter, counter.limit)
      lasts = lasts + reset_after
    end
    local expires = seconds + max(LEAST_TTL, math.ceil(lasts / 1000000) + 1)
    latest = max(latest, expires)
    if algorithm == LOG then
      if counter.expired > 0 then redis.call('LTRIM', counter.list, counter.expired, -1) end
      for _ = 1, counter.added do redis.call('RPUSH', counter.list, integer(counter.now)) end
      redis.call('EXPIRE', counter.list, expires - seconds)
      current, previous = 0, 0
    end
    local record = struct.pack(RECORD, counter.id, expires, counter.now, current, previous)
    if at then
      value = string.sub(value, 1, at - 1) .. record .. string.sub(value, at + RECORD_SIZE)
    else
      added = added .. record
    end
  end
  if not value then
    value = added
  elseif added ~= '' then
    value = lasting(value, seconds) .. added
  else
    value = string.sub(value, FIRST)
  end
  redis.call('SET', value_key, struct.pack('<I4', latest) .. value, 'EX', latest - seconds)
end
