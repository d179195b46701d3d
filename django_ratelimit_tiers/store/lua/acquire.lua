-- Decide every charge of a plan, all or none: core.plans.decide, on the server's clock.
--
-- KEYS[1]    the policy revision
-- KEYS[2..]  for each subject its counters; then the revisions of those subjects whose revision
--            the caller knows
-- KEYS[#]    the counts of refusals; the minute, ':minutes' and ':sample' are appended
-- ARGV[1]    the charges, CHARGE each: the number of its counter among those of the plan from 1,
--            the place of its subject's counters in KEYS, and the policy
-- ARGV[2]    the caller's policy revision, '*' when any will do
-- ARGV[3]    '1' to spend, '0' to look
-- ARGV[4]    now in microseconds, '' for this server's clock
-- ARGV[5]    most distinct fields of a minute's counts, its seconds to live, and the length of the
--            sample: '2000 86400 1000'
-- ARGV[6]    for each charge the label its refusal is counted under, '' for none: its length in 4
--            bytes before it
-- ARGV[7]    what a sampled refusal tells of the request, '' for no sample
-- ARGV[8..]  the caller's revisions of subjects
-- Reply: now and the counters' records in one string; where not everything fits, that and each
--        charge's wait (0: none). When a revision is not current: {0, the policy revision, and
--        each known subject's revision}.

local CHARGE, CHARGE_SIZE = '<HHBBc8I4I8I4I4', 34
local ENFORCE, SHADOW, OFF = 1, 2, 3

local known = #ARGV - 7
local of_subjects = #KEYS - 1 - known
local values = call('MGET', unpack(KEYS, 1, #KEYS - 1))

local stale = ARGV[2] ~= '*' and ARGV[2] ~= (values[1] or '')
for i = 1, known do
  if ARGV[7 + i] ~= (values[of_subjects + i] or '') then stale = true end
end
if stale then
  local current = {0, values[1] or ''}
  for i = 1, known do current[i + 2] = values[of_subjects + i] or '' end
  return current
end

local clock = call('TIME')
local seconds = tonumber(clock[1])
local now = tonumber(ARGV[4]) or seconds * 1000000 + tonumber(clock[2])

-- The charges are gone through once, each as if those before it were spent. When one refuses, or
-- the caller only looks, that was for the waits alone, and the counters are read again as they are.
local records, latest, waits, grown, logs = {}, {}, nil, nil, nil
local refused, spends = false, ARGV[3] == '1'
for pass = 1, 2 do
  local number_of_charge = 0
  for at = 1, #ARGV[1], CHARGE_SIZE do
    local number, place, algorithm, mode, id, limit, window, capacity, cost =
      unpack_from(CHARGE, ARGV[1], at)
    -- @settle
    local log, written
    if algorithm == LOG then
      logs = logs or {}
      log = logs[number]
      if not log then
        local value_key = KEYS[place]
        -- @log
        logs[number] = log
      end
      current = log.length - log.expired + log.added
      previous = log.added > 0 and time or log.newest
    end
    number_of_charge = number_of_charge + 1
    if pass == 2 then
      -- nothing is spent
    elseif current + part + cost > capacity then
      refused = refused or mode == ENFORCE
      -- core.algorithms.wait
      local to_window_end, waiting = window - time % window, window
      local function weight_falls_to(count, most)
        if count <= most then return 0 end
        local quotient, rest = muldiv(most + 1, window, count)
        return window - (rest > 0 and quotient or quotient - 1)
      end
      if cost > capacity then
        waiting = window
      elseif algorithm == BUCKET then
        local quotient, rest = muldiv(current + cost - capacity, window, limit)
        waiting = math.min(quotient + ceil((rest + previous) / limit), FOREVER)
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
      waits = waits or {}
      waits[number_of_charge] = waiting
    elseif mode ~= OFF and cost > 0 then
      current = current + cost
      if log then log.added, previous = log.added + cost, time end
      -- @record
      values[place], written = value, record
      if log then log.time, log.expires = time, expires end
      if not from then
        grown = grown or {}
        grown[place] = true
      end
      if expires > (latest[place] or 0) then latest[place] = expires end
    end
    records[number] = written or pack(RECORD, id, 0, time, current, previous)
  end
  if spends and not refused then break end
  values, logs = call('MGET', unpack(KEYS, 1, #KEYS - 1)), nil
end

if spends and not refused then
  for place, expires in pairs(latest) do
    local value_key, value, has_grown = KEYS[place], values[place], grown and grown[place]
    -- @save
  end
  for _, log in pairs(logs or {}) do
    if log.added > 0 then
      if log.expired > 0 then call('LTRIM', log.key, log.expired, -1) end
      for _ = 1, log.added do call('RPUSH', log.key, string.format('%.0f', log.time)) end
      call('EXPIRE', log.key, log.expires - seconds)
    end
  end
end
local reply = pack('<I8', now) .. table.concat(records)
if not waits then return reply end

-- Add 1 to the minute's count of what was refused, and put the refusal at the head of the sample.
-- Past the most distinct fields of a minute, and of every minute while too many wait to be read,
-- the subject gives way to '*', so that totals by label stay exact in bounded memory.
local function record_refusal(place, mode, waiting, label)
  local BACKLOG, counts, sample = 60, KEYS[#KEYS], ARGV[7]
  local function integer(value) return string.format('%.0f', value) end
  local most, ttl, sampled = string.match(ARGV[5], '(%d+) (%d+) (%d+)')
  local minute, minutes = seconds - seconds % 60, counts .. ':minutes'
  local key, subject_key = counts .. ':' .. integer(minute), KEYS[place]
  local counted, rule = string.match(label, '^([^%z]*%z[^%z]*%z[^%z]*)%z?(.*)$')
  local head = (mode == SHADOW and 'shadow' or 'enforce') .. '\0' .. (counted or label) .. '\0'
  local field = head .. subject_key
  if call('HEXISTS', key, field) == 0 then
    local fields = call('HLEN', key)
    if fields == 0 then
      call('ZADD', minutes, minute, integer(minute))
      call('ZREMRANGEBYSCORE', minutes, '-inf', minute - ttl)
      call('EXPIRE', minutes, ttl)
    end
    if fields >= tonumber(most) or call('ZCARD', minutes) > BACKLOG then field = head .. '*' end
    call('HINCRBY', key, field, 1)
    if fields == 0 then call('EXPIRE', key, ttl) end
  else
    call('HINCRBY', key, field, 1)
  end
  if sampled ~= '0' and sample ~= '' then
    local at = seconds * 1000000 + tonumber(clock[2])
    call('LPUSH', counts .. ':sample', integer(at) .. '\0' .. integer(waiting) .. '\0' .. head
      .. subject_key .. '\0' .. (rule or '') .. '\0' .. sample)
    call('LTRIM', counts .. ':sample', 0, sampled - 1)
    call('EXPIRE', counts .. ':sample', ttl)
  end
end

-- A refused request is counted once, under the refusing charge with the longest wait; what shadow
-- policies would refuse is counted by itself (core.refusals.counted_outcomes).
local charges, binding, next_label = {}, nil, 1
for at = 1, #ARGV[1], CHARGE_SIZE do
  local _, place, _, mode = unpack_from(CHARGE, ARGV[1], at)
  local i, label = #charges + 1, ''
  if ARGV[6] ~= '' then label, next_label = unpack_from('<I4c0', ARGV[6], next_label) end
  charges[i] = {place = place, mode = mode, label = label}
  if mode == ENFORCE and waits[i] and (not binding or waits[i] > waits[binding]) then binding = i end
end
local with_waits = {reply}
for i, charge in ipairs(charges) do
  with_waits[i + 1] = waits[i] or 0
  if spends and charge.label ~= '' and (i == binding or charge.mode == SHADOW and waits[i]) then
    record_refusal(charge.place, charge.mode, waits[i], charge.label)
  end
end
return with_waits
