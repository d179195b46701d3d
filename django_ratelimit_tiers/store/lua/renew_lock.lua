-- Keep the lock KEYS[1] for ARGV[2] seconds if ARGV[1] is still its token. Reply: 1 if it is.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('EXPIRE', KEYS[1], ARGV[2])
