-- ENTER: hold the lock if it is free and nobody stands before us; otherwise wait in the queue.
-- Repeating it is harmless: a token that holds already is told so, with its lease begun anew.
-- Returns {1, fence} held; {0, look in ms} busy; {-1, 0} this acquisition was given up before.
local holders, queue, fence, done = KEYS[1], KEYS[2], KEYS[4], KEYS[5]
local token, lease, delay, fence_ttl = ARGV[1], ARGV[2], ARGV[5], ARGV[6]
local time = redis.call('TIME')
local us = time[1] * 1000000 + time[2]
local now = math.floor(us / 1000)

-- Strictly above every earlier fence: the clock, or the stored one plus 1 if that is ahead.
local function next_fence()
  local before = redis.call('SET', fence, us, 'PX', fence_ttl, 'GET')
  if before and tonumber(before) >= us then
    us = tonumber(before) + 1
    redis.call('SET', fence, us, 'PX', fence_ttl)
  end
  return {1, us}
end

if redis.call('EXISTS', holders, queue, done) == 0 then -- nobody there: the common case
  redis.call('ZADD', holders, now + lease, token)
  redis.call('PEXPIRE', holders, lease + delay)
  return next_fence()
end

local alive, heartbeat, limit = KEYS[3], tonumber(ARGV[3]), tonumber(ARGV[4])
lease, delay = tonumber(lease), tonumber(delay)

--[[common]]

if redis.call('EXISTS', done) == 1 then return {-1, 0} end

purge_holders(holders, now, delay)
local mine = tonumber(redis.call('ZSCORE', holders, token) or 0) > now
local head = redis.call('ZRANGE', queue, 0, 0)[1]
local count = redis.call('ZCARD', holders)

if head and not mine then
  purge_waiters(queue, alive, now)
  head = redis.call('ZRANGE', queue, 0, 0)[1]
end

local function may_enter()
  if exclusive(token) then
    return count == 0 and (not head or head == token or not exclusive(head))
  end
  if head and exclusive(head) then return false end
  if count > 0 and exclusive(redis.call('ZRANGE', holders, 0, 0)[1]) then return false end
  local before = head and (redis.call('ZRANK', queue, token) or redis.call('ZCARD', queue)) or 0
  return count + before < limit
end

if not mine and not may_enter() then
  if heartbeat > 0 then
    if not redis.call('ZSCORE', queue, token) then
      local place = 0
      local last
      if exclusive(token) then
        place = -4503599627370496
        last = redis.call('ZREVRANGEBYSCORE', queue, '(0', '-inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
      else
        last = redis.call('ZREVRANGEBYSCORE', queue, '+inf', '0', 'WITHSCORES', 'LIMIT', 0, 1)[2]
      end
      redis.call('ZADD', queue, int(last and tonumber(last) + 1 or place), token)
    end
    redis.call('ZADD', alive, int(now + heartbeat), token)
    keep(queue, heartbeat + 1000)
    keep(alive, heartbeat + 1000)
  end
  return {0, look_in(holders, queue, alive, now, delay, coordinator_of(token))}
end

if head then
  redis.call('ZREM', queue, token)
  redis.call('ZREM', alive, token)
end
redis.call('ZADD', holders, int(now + lease), token)
if count == 0 then
  redis.call('PEXPIRE', holders, int(lease + delay))
else
  keep(holders, lease + delay)
end

return next_fence()
