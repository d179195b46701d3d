#!lua flags=allow-oom
-- Take the lock KEYS[1] with the token ARGV[1] for ARGV[2] seconds, on a server without room: one
-- that is full of refusals has room again only once they are written. Since Redis 7.0. Reply: 1 if
-- it was free.
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'EX', ARGV[2]) and 1 or 0
