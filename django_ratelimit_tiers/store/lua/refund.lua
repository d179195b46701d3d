-- Give back charges: core.algorithms.give_back.
--
-- KEYS       for each subject its counters
-- ARGV[1]    the charges
-- ARGV[2]    now in microseconds, '' for this server's clock
-- ARGV[3]    when the charges were made, in microseconds, '' for the newest ones
-- Reply: how many counters changed.

if #KEYS == 0 then return 0 end

local values = call('MGET', unpack(KEYS))
local clock = call('TIME')
local seconds = tonumber(clock[1])
local now = tonumber(ARGV[2]) or seconds * 1000000 + tonumber(clock[2])
local charged_at = tonumber(ARGV[3])

local function less(count, cost)
  return count > cost and count - cost or 0
end

local given, at = 0, 1
for place, value_key in ipairs(KEYS) do
  local value = values[place]
  -- @subject
  repeat
    local is_last, algorithm, _, id, limit, window, _, cost = unpack_from(CHARGE, ARGV[1], at)
    local from = find(value, id, unread, true)
    local log, record
    at = at + CHARGE_SIZE
    if from ~= unread then
      -- @seek
    end
    -- @settle
    local gives, age = false, nil
    if charged_at then age = math.floor(time / window) - math.floor(charged_at / window) end
    if from and cost > 0 then
      if algorithm == LOG then
        -- @list
        if not charged_at then
          gives = current > 0 and previous > time - window
          if gives then call('LTRIM', list, 0, -cost - 1) end
        elseif charged_at > time - window then
          gives = call('LREM', list, -cost, string.format('%.0f', charged_at)) > 0
        end
        -- @log
        current, previous = log.length - log.expired, log.newest
      elseif algorithm == BUCKET then
        if current < cost then previous = 0 end
        current, gives = less(current, cost), true
      elseif not charged_at then
        local of_current = current < cost and current or cost
        current, previous, gives = current - of_current, less(previous, cost - of_current), true
      elseif age == 0 then current, gives = less(current, cost), true
      elseif age == 1 then previous, gives = less(previous, cost), true end
    end
    if gives then
      -- @record
      given = given + 1
    end
  until is_last == 1
  if latest > 0 then
    -- @finish
    -- @save
  end
end
return given
