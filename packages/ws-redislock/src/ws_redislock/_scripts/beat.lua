-- BEAT: one heartbeat for all waiters that a hub has on one lock, and a look at the lock.
-- Returns {look in ms, tokens of the calling hub that must ENTER again ...}: those that could hold
-- the lock now, and those that the queue does not know (any more).
local holders, queue, alive = KEYS[1], KEYS[2], KEYS[3]
local hub, heartbeat, limit, delay = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = math.floor(time_us() / 1000)
local look = {}

for i = 5, #ARGV do
  local token = ARGV[i]
  if redis.call('ZSCORE', queue, token) then
    redis.call('ZADD', alive, int(now + heartbeat), token)
  else
    look[#look + 1] = token
  end
end
if #look < #ARGV - 4 then
  keep(queue, heartbeat + 1000)
  keep(alive, heartbeat + 1000)
end

purge_holders(holders, now, delay)
purge_waiters(queue, alive, now)
for _, token in ipairs(wake(holders, queue, limit, hub)) do
  look[#look + 1] = token
end
return first_then(look_in(holders, queue, alive, now, delay, hub), look)
