-- RESET: take the lock away from all its holders, tell them, and wake who comes next.
-- Returns {number of holders that were dispossessed, tokens of the calling hub to look at ...}.
local holders, queue, alive = KEYS[1], KEYS[2], KEYS[3]
local hub, limit = ARGV[1], tonumber(ARGV[2])
local now = math.floor(time_us() / 1000)
local look = {}
local count = 0

for _, token in ipairs(redis.call('ZRANGEBYSCORE', holders, int(now + 1), '+inf')) do
  count = count + 1
  if hub_of(token) == hub then
    look[#look + 1] = token
  else
    redis.call('PUBLISH', 'wsl:hub:' .. hub_of(token), token)
  end
end
redis.call('DEL', holders)
purge_waiters(queue, alive, now)
for _, token in ipairs(wake(holders, queue, limit, hub)) do
  look[#look + 1] = token
end
return first_then(count, look)
