-- Give back the lock KEYS[1] if ARGV[1] is still its token. Reply: how many keys were deleted.
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
