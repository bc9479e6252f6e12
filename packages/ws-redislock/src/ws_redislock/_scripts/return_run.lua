-- RETURN RUN: give a claim back before the run is done; the run stays open for others.
-- Returns {1} given back; {0} it was over, or is another's.
local run, mine = KEYS[1], ARGV[1]
if redis.call('GET', run) ~= mine then return {0} end
redis.call('DEL', run)
return {1}
