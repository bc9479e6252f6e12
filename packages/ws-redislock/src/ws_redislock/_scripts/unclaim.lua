-- UNCLAIM: give a claim back, if it is of the claimer that gives it back. Repeating it is harmless.
-- Returns {1} given back; {0} it was over, or is another's.
local key, claimer = KEYS[1], ARGV[1]
local owner = redis.call('GET', key)
if not owner or string.sub(owner, 1, #claimer) ~= claimer then return {0} end
redis.call('DEL', key)
return {1}
