-- RENEW RUN: keep a claim in hand. One whose time is over is taken up again while no other has it: that
-- is better than a second claimer, since the run goes on anyway. Returns {1} ours; {0} another's.
local run, mine, ttl = KEYS[1], ARGV[1], ARGV[2]
local value = redis.call('GET', run)
if value and value ~= mine then return {0} end
redis.call('SET', run, mine, 'PX', ttl)
return {1}
