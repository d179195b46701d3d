-- Decide every charge of a plan, all or none: core.plans.decide, on the server's clock.
--
-- KEYS[1]    the policy revision
-- KEYS[2]    the counts of refusals; the minute, ':minutes' and ':sample' are appended
-- KEYS[3..]  two keys a subject: its counters, and its own revision
-- ARGV[1]    '1' to spend, '0' to look
-- ARGV[2]    now in microseconds, '' for this server's clock
-- ARGV[3]    the caller's policy revision, '*' when any will do
-- ARGV[4]    the charges, CHARGE each
-- ARGV[5]    most distinct fields of a minute's counts, its seconds to live, and the length of the
--            sample: '2000 86400 1000'
-- ARGV[6..]  for each subject the caller's revision of it, '*' when any will do;
--            then for each charge the label its refusal is counted under, '' for none;
--            then what a sampled refusal tells of the request, '' for no sample
-- Reply: {0, now, and for each charge: allowed (0 or 1), remaining, reset_after, wait (0: none)},
--        or when a revision is not current {1, policy revision, and each subject's revision}.

local CHARGE, CHARGE_SIZE = '<BBBc8I4I8I4I4', 31
local ENFORCE, SHADOW, OFF = 1, 2, 3
local BACKLOG = 60

local values = redis.call('MGET', unpack(KEYS))
local subjects = (#KEYS - 2) / 2

local stale = ARGV[3] ~= '*' and ARGV[3] ~= (values[1] or '')
for i = 1, subjects do
  local known = ARGV[5 + i]
  stale = stale or known ~= '*' and known ~= (values[2 + 2 * i] or '')
end
if stale then
  local current = {1, values[1] or ''}
  for i = 1, subjects do current[i + 2] = values[2 + 2 * i] or '' end
  return current
end

local clock = redis.call('TIME')
local seconds = tonumber(clock[1])
local now = tonumber(ARGV[2]) or seconds * 1000000 + tonumber(clock[2])

-- core.algorithms.wait, for costs that the capacity can hold.
local function wait(counter, limit, capacity, cost)
  local algorithm, current, window = counter.algorithm, counter.current, counter.window
  if algorithm == BUCKET then
    local excess = current + cost - capacity
    if excess < 0 or (excess == 0 and counter.previous == 0) then return 0 end
    local quotient, rest = muldiv(excess, window, limit)
    return quotient + math.ceil((rest + counter.previous) / limit)
  end
  if algorithm == FIXED then
    return current + cost <= limit and 0 or to_window_end(counter)
  end
  if algorithm == LOG then
    local must_leave = current + cost - limit
    if must_leave <= 0 then return 0 end
    return log_entry(counter, must_leave - 1) + window - counter.now
  end
  local spare = limit - cost - current
  if spare >= counter.weight then return 0 end
  if spare >= 0 then
    return weight_falls_to(counter, counter.previous, spare) - counter.now % window
  end
  return to_window_end(counter) + weight_falls_to(counter, current, limit - cost)
end

local counters, charges, refused = {}, {}, false
for i = 1, subjects do
  counters[i], values[1 + 2 * i] = {}, intact(values[1 + 2 * i])
end

for at = 1, #ARGV[4], CHARGE_SIZE do
  local subject, algorithm, mode, id, limit, window, capacity, cost = struct.unpack(CHARGE, ARGV[4], at)
  local key = 1 + 2 * subject
  local counter = counters[subject][id]
  if not counter then
    counter = settle(KEYS[key], values[key], id, algorithm, limit, window, now)
    counters[subject][id] = counter
  end
  local waiting = window
  if cost <= capacity then waiting = min(wait(counter, limit, capacity, cost), FOREVER) end
  local taken = 0
  if waiting == 0 and mode ~= OFF then
    taken = cost
    counter.current = counter.current + cost
    if algorithm == LOG then counter.added = counter.added + cost end
  elseif waiting > 0 and mode == ENFORCE then
    refused = true
  end
  charges[#charges + 1] = {counter = counter, mode = mode, subject = subject, limit = limit,
                           capacity = capacity, taken = taken, waiting = waiting}
end

if refused or ARGV[1] == '0' then
  for i = 1, #charges do
    local charge = charges[i]
    charge.counter.current = charge.counter.current - charge.taken
  end
else
  local changed = {}
  for i = 1, #charges do
    local charge = charges[i]
    local counter, of_subject = charge.counter, changed[charge.subject]
    if charge.taken > 0 and not counter.changed then
      counter.changed = true
      if of_subject then of_subject[#of_subject + 1] = counter else changed[charge.subject] = {counter} end
    end
  end
  for subject, of_subject in pairs(changed) do
    save(KEYS[1 + 2 * subject], values[1 + 2 * subject], of_subject, seconds)
  end
end

-- The charge that a refusal is counted under: the refusing one with the longest wait, so that a
-- refused request is counted once (core.refusals.counted_outcomes).
local binding
for i = 1, refused and #charges or 0 do
  local charge = charges[i]
  if charge.mode == ENFORCE and charge.waiting > 0
    and (not binding or charge.waiting > binding.waiting) then
    binding = charge
  end
end

-- Add 1 to the minute's count of what was refused, and put the refusal at the head of the sample.
-- Past the most distinct fields of a minute, and of every minute while too many wait to be read,
-- the subject gives way to '*', so that totals by label stay exact in bounded memory.
local function record_refusal(charge, label, sample)
  local most, ttl, sampled = string.match(ARGV[5], '(%d+) (%d+) (%d+)')
  local minute, minutes = seconds - seconds % 60, KEYS[2] .. ':minutes'
  local key, subject_key = KEYS[2] .. ':' .. integer(minute), KEYS[1 + 2 * charge.subject]
  local counted, rule = string.match(label, '^([^%z]*%z[^%z]*%z[^%z]*)%z?(.*)$')
  local head = (charge.mode == SHADOW and 'shadow' or 'enforce') .. '\0' .. (counted or label) .. '\0'
  local field = head .. subject_key
  if redis.call('HEXISTS', key, field) == 0 then
    local fields = redis.call('HLEN', key)
    if fields == 0 then
      redis.call('ZADD', minutes, minute, integer(minute))
      redis.call('ZREMRANGEBYSCORE', minutes, '-inf', minute - ttl)
      redis.call('EXPIRE', minutes, ttl)
    end
    if fields >= tonumber(most) or redis.call('ZCARD', minutes) > BACKLOG then field = head .. '*' end
    redis.call('HINCRBY', key, field, 1)
    if fields == 0 then redis.call('EXPIRE', key, ttl) end
  else
    redis.call('HINCRBY', key, field, 1)
  end
  if sampled ~= '0' and sample ~= '' then
    local at = seconds * 1000000 + tonumber(clock[2])
    redis.call('LPUSH', KEYS[2] .. ':sample', integer(at) .. '\0' .. integer(charge.waiting) .. '\0'
      .. head .. subject_key .. '\0' .. (rule or '') .. '\0' .. sample)
    redis.call('LTRIM', KEYS[2] .. ':sample', 0, sampled - 1)
    redis.call('EXPIRE', KEYS[2] .. ':sample', ttl)
  end
end

local reply = {0, now}
for i = 1, #charges do
  local charge = charges[i]
  local counter = charge.counter
  local used, reset_after = standing(counter, charge.limit)
  local n = 4 * i - 1
  reply[n] = charge.waiting == 0 and 1 or 0
  reply[n + 1] = max(0, charge.capacity - used)
  reply[n + 2] = reset_after
  reply[n + 3] = charge.waiting
  local label = ARGV[5 + subjects + i]
  if (charge == binding or charge.mode == SHADOW and charge.waiting > 0)
    and label ~= '' and ARGV[1] == '1' then
    record_refusal(charge, label, ARGV[#ARGV])
  end
end
return reply
