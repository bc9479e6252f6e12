-- CLAIM: the first to ask gets it, until it is given back or its time is over.
-- Repeating it with the same token says the same. Returns 1 claimed; 0 another has it.
local key, token, ttl = KEYS[1], ARGV[1], ARGV[2]
local owner = redis.call('GET', key)
if owner == token then return {1} end
if owner then return {0} end
redis.call('SET', key, token, 'PX', ttl)
return {1}
