-- Give KEYS[1] the value ARGV[2] for ARGV[3] seconds if it has ARGV[1] still. Reply: nothing.
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end
