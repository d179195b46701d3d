-- Decide every charge of a plan, all or none: core.plans.decide, on the server's clock.
--
-- KEYS[1]    the counts of refusals; the minute and ':minutes' are appended
-- KEYS[2]    the policy revision
-- KEYS[3..]  for each subject its counters; then the revisions of those subjects whose revision
--            the caller knows
-- ARGV[1]    1 to spend, 0 to look (1 byte); the place of the last counters in KEYS (2); 1 if now is
--            given, 0 for this server's clock (1); now in microseconds (8); then the charges; then
--            what only a refusal needs:
--            most distinct fields of a minute's counts, and its seconds to live (4 each); and for
--            each charge in the order of the plan, which it is of those above from 0, the place of
--            its subject's counters in KEYS (2 each), its mode (1), and the label its refusal is
--            counted under, '' for none: its length (4) before it
-- ARGV[2]    the caller's policy revision, '*' when any will do
-- ARGV[3..]  the caller's revisions of subjects
-- Reply: now and the counter's record of each charge in one string; where not everything fits, that
--        and each charge's wait in the order of the plan (0: none). When a revision is not current:
--        {0, the policy revision, and each known subject's revision}.

local ENFORCE, SHADOW, OFF, FIRST_CHARGE = 1, 2, 3, 13

local plan = ARGV[1]
local spends, last_place, is_given, now = unpack_from('<BHBI8', plan)
local values = call('MGET', unpack(KEYS, 2))

local known = #KEYS - last_place
local stale = ARGV[2] ~= '*' and ARGV[2] ~= (values[1] or '')
for i = 1, known do
  if ARGV[2 + i] ~= (values[last_place - 1 + i] or '') then stale = true end
end
if stale then
  local current = {0, values[1] or ''}
  for i = 1, known do current[i + 2] = values[last_place - 1 + i] or '' end
  return current
end

local clock = call('TIME')
local seconds = clock[1] + 0
if is_given == 0 then now = seconds * 1000000 + clock[2] end

-- The charges are gone through once, each as if those before it were spent. When one refuses, or
-- the caller only looks, that was for the waits alone, and they are gone through again to tell the
-- counters as they are. `told` is what the reply says of a subject; that is its new value's `head`
-- as long as this holds the record of every charge and no other.
local reply, bodies, expiries, waits, logs, at
local refused, changes = false, false
for pass = 1, 2 do
  reply, bodies, expiries, at = pack('<I8', now), {}, {}, FIRST_CHARGE
  for place = 3, last_place do
    local value, told = values[place - 1], nil
    -- @subject
    repeat
      local is_last, algorithm, mode, id, limit, window, capacity, cost =
        unpack_from(CHARGE, plan, at)
      local from = find(value, id, unread, true)
      local log, record
      if from ~= unread then
        told = told or head
        -- @seek
      end
      -- @settle
      if algorithm == LOG then
        logs = logs or {}
        log = logs[place .. id]
        if not log then
          local value_key = KEYS[place]
          -- @log
          logs[place .. id] = log
        end
        current = log.length - log.expired + log.added
        previous = log.added > 0 and time or log.newest
      end
      if pass == 2 then
        -- nothing is spent
      elseif current + part + cost > capacity then
        refused = refused or mode == ENFORCE
        -- @wait
        waits = waits or {}
        waits[at] = math.min(waiting + time - now, FOREVER)  -- the clock may have gone back
      elseif mode ~= OFF and cost > 0 then
        current = current + cost
        if log then log.added, previous = log.added + cost, time end
        -- @record
        if log then log.time, log.expires = time, expires end
      end
      if not record then
        told = told or head
        record = pack(RECORD, id, 0, time, current, previous)
      end
      if told then told = told .. record end
      at = at + CHARGE_SIZE
    until is_last == 1
    reply = reply .. (told or head)
    if latest > 0 then
      -- @finish
      bodies[place], expiries[place], changes = body, expires, true
    end
  end
  if spends == 1 and not refused or not changes then break end
  for _, log in pairs(logs or {}) do log.added = 0 end
end

if spends == 1 and not refused then
  for place = 3, last_place do
    local value_key, body, expires = KEYS[place], bodies[place], expiries[place]
    if body then
      -- @save
    end
  end
  for _, log in pairs(logs or {}) do
    if log.added > 0 then
      if log.expired > 0 then call('LTRIM', log.key, log.expired, -1) end
      for _ = 1, log.added do call('RPUSH', log.key, string.format('%.0f', log.time)) end
      call('EXPIRE', log.key, log.expires - seconds)
    end
  end
end
if not waits then return reply end

local most, ttl, next_label = unpack_from('<I4I4', plan, at)

-- Ask one of the keys below; a value of another type, which somebody else has put there, gives way:
-- a refusal must not fail by it. Any other error is raised when it comes again.
local function ask(command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) == 'number' then return answer end
  if find(answer.err, 'WRONGTYPE', 1, true) then call('DEL', key) end
  return call(command, key, ...)
end

-- Add 1 to the minute's count of what was refused.
-- Past the most distinct fields of a minute, and of every minute while too many wait to be read,
-- the subject gives way to '*', so that totals by label stay exact in bounded memory.
local function count_refusal(place, mode, label)
  local BACKLOG, counts = 60, KEYS[1]
  local function integer(value) return string.format('%.0f', value) end
  local minute, minutes = seconds - seconds % 60, counts .. ':minutes'
  local key, subject_key = counts .. ':' .. integer(minute), KEYS[place]
  local counted = string.match(label, '^([^%z]*%z[^%z]*%z[^%z]*)')
  local head = (mode == SHADOW and 'shadow' or 'enforce') .. '\0' .. (counted or label) .. '\0'
  local field = head .. subject_key
  if ask('HEXISTS', key, field) == 0 then
    local fields = call('HLEN', key)
    if fields == 0 or ask('ZCARD', minutes) == 0 then
      ask('ZADD', minutes, minute, integer(minute))
      call('ZREMRANGEBYSCORE', minutes, '-inf', minute - ttl)
      call('EXPIRE', minutes, ttl)
    end
    if fields >= most or call('ZCARD', minutes) > BACKLOG then field = head .. '*' end
    call('HINCRBY', key, field, 1)
    if fields == 0 then call('EXPIRE', key, ttl) end
  else
    call('HINCRBY', key, field, 1)
  end
end

-- A refused request is counted once, under the refusing charge with the longest wait; what shadow
-- policies would refuse is counted by itself (core.refusals.counted_outcomes).
local charges, binding = {}, nil
while next_label <= #plan do
  local number, place, mode, label
  number, place, mode, label, next_label = unpack_from('<HHBI4c0', plan, next_label)
  local waiting = waits[FIRST_CHARGE + number * CHARGE_SIZE] or 0
  local charge = {place = place, mode = mode, waiting = waiting, label = label}
  if mode == ENFORCE and waiting > (binding and binding.waiting or 0) then binding = charge end
  charges[#charges + 1] = charge
end
local with_waits = {reply}
for i, charge in ipairs(charges) do
  with_waits[i + 1] = charge.waiting
  local counts = charge == binding or charge.mode == SHADOW and charge.waiting > 0
  if spends == 1 and charge.label ~= '' and counts then
    count_refusal(charge.place, charge.mode, charge.label)
  end
end
return with_waits
