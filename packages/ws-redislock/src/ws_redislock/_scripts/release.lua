-- RELEASE: give the lock back, and hand it over or wake who comes next. Repeating it says "released" again.
-- KEYS[6], ARGV[5 to 7]: tombstone, token, lease and life of the fence of the calling coordinator's first waiter, if it
-- has one. When that is the first of all, it holds the lock now, and needs no ENTER.
-- Returns {1, tokens of the calling coordinator to wake ...} released; {2, fence, new holder, tokens to wake ...}
-- released and handed over; {0} it was lost before.
local holders, queue, alive, fence, done = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local token, limit, delay, remember = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local following, lease = ARGV[5], tonumber(ARGV[6])
local simple = limit == 1 and delay == 0 -- then the key itself ends with the lease of its one holder
local now

if not simple then
  local time = redis.call('TIME')
  now = math.floor((time[1] * 1000000 + time[2]) / 1000)
end

if not simple and tonumber(redis.call('ZSCORE', holders, token) or 0) <= now
  or redis.call('ZREM', holders, token) == 0 then
  if redis.call('GET', done) ~= 'r' then return {0} end
  -- The reply was lost: it may have handed the lock over, and then the new holder finds out by an ENTER.
  return following and redis.call('ZSCORE', holders, following) and {1, following} or {1}
end

redis.pcall('SET', done, 'r', 'PX', remember) -- even when memory is short, the release goes on
if redis.call('EXISTS', queue) == 0 then return {1} end

--[[common]]

local us = time_us()
now = math.floor(us / 1000)
purge_holders(holders, now, delay)
purge_waiters(queue, alive, now)

local function may_follow()
  if not following or redis.call('ZRANGE', queue, 0, 0)[1] ~= following then return false end
  if redis.call('EXISTS', KEYS[6]) == 1 then return false end
  local count = redis.call('ZCARD', holders)
  if count == 0 then return true end
  return not exclusive(following) and count < limit
    and not exclusive(redis.call('ZRANGE', holders, 0, 0)[1])
end

if may_follow() then
  redis.call('ZREM', queue, following)
  redis.call('ZREM', alive, following)
  redis.call('ZADD', holders, int(now + lease), following)
  keep(holders, lease + delay)
  local reply = wake(holders, queue, limit, coordinator_of(token), false)
  table.insert(reply, 1, following)
  table.insert(reply, 1, advance_fence(fence, us, ARGV[7]))
  return first_then(2, reply)
end

return first_then(1, wake(holders, queue, limit, coordinator_of(token), true))
