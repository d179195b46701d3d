-- Give back charges: core.algorithms.give_back.
--
-- KEYS       for each subject its counters
-- ARGV[1]    now in microseconds, '' for this server's clock
-- ARGV[2]    when the charges were made, in microseconds, '' for now
-- ARGV[3]    the charges, as in acquire.lua
-- Reply: how many counters changed.

local CHARGE, CHARGE_SIZE = '<BBBc8I4I8I4I4', 31

if #KEYS == 0 then return 0 end

local values = redis.call('MGET', unpack(KEYS))
local clock = redis.call('TIME')
local seconds = tonumber(clock[1])
local now = tonumber(ARGV[1]) or seconds * 1000000 + tonumber(clock[2])
local charged_at = tonumber(ARGV[2]) or now

local function give_back(counter, cost)
  if counter.algorithm == LOG then
    return charged_at > counter.now - counter.window
      and redis.call('LREM', counter.list, -cost, integer(charged_at)) > 0
  elseif counter.algorithm == BUCKET then
    if counter.current < cost then counter.previous = 0 end
    counter.current = max(0, counter.current - cost)
    return true
  end
  local age = floor(counter.now / counter.window) - floor(charged_at / counter.window)
  if age == 0 then counter.current = max(0, counter.current - cost)
  elseif age == 1 then counter.previous = max(0, counter.previous - cost) end
  return age == 0 or age == 1
end

local given = 0
for at = 1, #ARGV[3], CHARGE_SIZE do
  local subject, algorithm, _, id, limit, window, _, cost = struct.unpack(CHARGE, ARGV[3], at)
  local key, value = KEYS[subject], intact(values[subject])
  if value and cost > 0 and find_record(value, id) then
    local counter = settle(key, value, id, algorithm, limit, window, now)
    if give_back(counter, cost) then
      if algorithm == LOG then
        counter.length = redis.call('LLEN', counter.list)
        counter.expired = entries_until(counter.list, counter.length, counter.now - window)
      end
      save(key, value, {counter}, seconds)
      values[subject] = redis.call('GET', key)
      given = given + 1
    end
  end
end
return given
