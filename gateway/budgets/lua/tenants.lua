-- Add tenants (ARGV) to those whose holds have to be looked after (KEYS[1]). A script, so that full memory does not stop it.
return redis.call('SADD', KEYS[1], unpack(ARGV))
