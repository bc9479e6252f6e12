-- RESET: take the lock away from all its holders, tell them, and wake who comes next.
-- Repeating it says the same, and leaves the next holder alone.
-- Returns {number of holders that were dispossessed, tokens of the calling coordinator to look at ...}.
local holders, queue, alive, done = KEYS[1], KEYS[2], KEYS[3], KEYS[5]
local coordinator, limit, remember = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local before = redis.call('GET', done)
if before then return {tonumber(before)} end

local now = math.floor(time_us() / 1000)
local look = {}
local count = 0

for _, token in ipairs(redis.call('ZRANGEBYSCORE', holders, int(now + 1), '+inf')) do
  count = count + 1
  if coordinator_of(token) == coordinator then
    look[#look + 1] = token
  else
    hint(coordinator_of(token), token)
  end
end
redis.call('DEL', holders)
redis.pcall('SET', done, count, 'PX', remember) -- even when memory is short, the rest is done
purge_waiters(queue, alive, now)
for _, token in ipairs(wake(holders, queue, limit, coordinator, true)) do
  look[#look + 1] = token
end
return first_then(count, look)
