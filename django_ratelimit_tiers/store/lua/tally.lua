-- Add what a process has counted: usage, sightings, quotas that run short, local refusals; and its
-- newest refusals in full.
--
-- KEYS[1]    the counts of refusals; every other key begins with it
-- KEYS[2]    one of those: no node of a cluster runs this while their slot moves, since each would
--            write keys that the other has, and those would not go together
-- ARGV[1]    the tally as JSON
-- ARGV[2..]  most subjects of an hour; most sightings of a set, the seconds it covers and lives;
--            seconds to live of usage; most quotas; most fields of a minute, and its seconds to live;
--            the length of the sample; the minutes that may wait to be read before refusals are
--            no longer counted by subject; who tells this, and the number of the tally
-- Reply: nothing.

local base, number = KEYS[1], tonumber(ARGV[13])

-- A tally that came before, but whose teller did not hear so, comes again.
local teller = base .. ':teller:' .. ARGV[12]
if tonumber(redis.call('GET', teller) or 0) >= number then return end
redis.call('SET', teller, ARGV[13], 'EX', 86400)

local tally = cjson.decode(ARGV[1])
local busiest, most_seen = tonumber(ARGV[2]), tonumber(ARGV[3])
local seen_seconds, seen_ttl, usage_ttl = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local most_quotas, most_fields, count_ttl = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9]
local most_sampled, backlog = tonumber(ARGV[10]), tonumber(ARGV[11])
local seconds = tonumber(redis.call('TIME')[1])

local function integer(number)
  return string.format('%.0f', number)
end

-- Space-Saving (Metwally, Agrawal and El Abbadi, 2005): a subject that finds no room takes over
-- the count of the least busy one, so a busy subject is never missed and never counted too low.
local hour = seconds - seconds % 3600
local hours, key = base .. ':hours', base .. ':usage:' .. integer(hour)
for subject, numbers in pairs(tally.usage) do
  local allowed, refused, limit = numbers[1], numbers[2], numbers[3]
  local taken_over = 0
  if not redis.call('ZSCORE', key, subject) and redis.call('ZCARD', key) >= busiest then
    local least = redis.call('ZPOPMIN', key)
    redis.call('HDEL', key .. ':refused', least[1])
    redis.call('HDEL', key .. ':limits', least[1])
    taken_over = tonumber(least[2])
  end
  redis.call('ZINCRBY', key, integer(allowed + refused + taken_over), subject)
  if refused > 0 then redis.call('HINCRBY', key .. ':refused', subject, integer(refused)) end
  if limit > 0 then redis.call('HSET', key .. ':limits', subject, integer(limit)) end
end
if next(tally.usage) then
  redis.call('ZADD', hours, hour, integer(hour))
  redis.call('ZREMRANGEBYSCORE', hours, '-inf', hour - usage_ttl)
  for _, name in ipairs({hours, key, key .. ':refused', key .. ':limits'}) do
    redis.call('EXPIRE', name, usage_ttl)
  end
end

for _, account in ipairs(tally.accounts) do
  redis.call('HSET', base .. ':accounts', account, integer(seconds))
  redis.call('EXPIRE', base .. ':accounts', usage_ttl)
end

local seen = base .. ':seen:' .. integer(seconds - seconds % seen_seconds)
for _, member in ipairs(tally.seen) do redis.call('SADD', seen, member) end
local surplus = redis.call('SCARD', seen) - most_seen
if surplus > 0 then redis.call('SPOP', seen, surplus) end
if #tally.seen > 0 then redis.call('EXPIRE', seen, seen_ttl) end

-- Whether a quota's numbers (used, limit, end of the window) are news beside those known.
local function replaces(numbers, known)
  local used, limit, window = string.match(numbers, '(%d+) (%d+) (%d+)')
  local known_used, known_limit, known_window = string.match(known, '(%d+) (%d+) (%d+)')
  if window == known_window and limit == known_limit then return used + 0 > known_used + 0 end
  return window + 0 >= known_window + 0
end

local quotas = base .. ':quotas'
for name, numbers in pairs(tally.quotas) do
  local known = redis.call('HGET', quotas, name)
  local is_news
  if known then is_news = replaces(numbers, known)
  else is_news = redis.call('HLEN', quotas) < most_quotas end
  if is_news then
    redis.call('HSET', quotas, name, numbers)
    redis.call('EXPIRE', quotas, usage_ttl)
  end
end

-- Refusals of a time when the server was away count in the present minute: theirs may be closed.
local minute = seconds - seconds % 60
local counts, minutes = base .. ':' .. integer(minute), base .. ':minutes'
for _, refusal in ipairs(tally.refusals) do
  local field = refusal[1] .. refusal[2]
  local is_full = redis.call('HLEN', counts) >= most_fields or redis.call('ZCARD', minutes) > backlog
  if is_full and redis.call('HEXISTS', counts, field) == 0 then field = refusal[1] .. '*' end
  redis.call('HINCRBY', counts, field, integer(refusal[3]))
  redis.call('ZADD', minutes, minute, integer(minute))
  redis.call('EXPIRE', counts, count_ttl)
  redis.call('EXPIRE', minutes, count_ttl)
end

if most_sampled > 0 and #tally.sample > 0 then
  local sample = base .. ':sample'
  for _, refusal in ipairs(tally.sample) do
    local answer = redis.pcall('LPUSH', sample, refusal)
    if type(answer) ~= 'number' then  -- what somebody else has put there gives way
      if string.find(answer.err, 'WRONGTYPE', 1, true) then redis.call('DEL', sample) end
      redis.call('LPUSH', sample, refusal)
    end
  end
  redis.call('LTRIM', sample, 0, most_sampled - 1)
  redis.call('EXPIRE', sample, count_ttl)
end
