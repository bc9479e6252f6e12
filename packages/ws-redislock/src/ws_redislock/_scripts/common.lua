-- What all lock scripts share; put in front of each of them, or where a script says so behind what
-- it does in the common case. Nothing here depends on a client's clock.
--
-- A lock is five keys with one hash tag:
--   holders     ZSET token -> server time in ms at which its lease ends
--   queue       ZSET token -> place; exclusive waiters stand before shared ones, each kind in order of arrival
--   alive       ZSET token -> server time in ms at which the waiter counts as dead
--   fence       the last fencing token
--   done:<t>    tombstone of one finished acquisition: 'r' released, 'a' abandoned
--
-- A token is <kind><coordinator's id>.<serial>; kind is x (exclusive) or s (shared). The coordinator is the client
-- process that listens on 'wsl:hub:<coordinator's id>' for its tokens' wake-ups.

local LOST_HINT = 500 -- ms

local function time_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function int(number)
  return string.format('%.0f', number)
end

local function exclusive(token)
  return string.byte(token) == 120
end

local function coordinator_of(token)
  return string.sub(token, 2, string.find(token, '.', 1, true) - 1)
end

local function first_then(first, list)
  table.insert(list, 1, first)
  return list
end

local function keep(key, ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, int(ms)) end
end

-- Forget holders whose lease (and the delay that follows an involuntary loss) is over.
local function purge_holders(holders, now, delay)
  redis.call('ZREMRANGEBYSCORE', holders, '-inf', int(now - delay))
end

-- Forget waiters whose heart no longer beats.
local function purge_waiters(queue, alive, now)
  local dead = redis.call('ZRANGEBYSCORE', alive, '-inf', int(now))
  for _, token in ipairs(dead) do
    redis.call('ZREM', queue, token)
    redis.call('ZREM', alive, token)
  end
end

-- Hint to another client. Its user may have no rights on channels: then what was done stays done, and
-- waiters find it at their next look.
local function hint(coordinator, tokens)
  redis.pcall('PUBLISH', 'wsl:hub:' .. coordinator, tokens)
end

-- Strictly above every earlier fence: the clock, or the stored one plus 1 if that is ahead.
local function advance_fence(fence, us, ttl)
  local before = redis.call('SET', fence, us, 'PX', ttl, 'GET')
  if before and tonumber(before) >= us then
    us = tonumber(before) + 1
    redis.call('SET', fence, us, 'PX', ttl)
  end
  return us
end

-- Hint to every waiter that could enter now. Those of the calling coordinator are returned, others published.
-- When a place was freed the first waiter is hinted to in any case: it may know of more places than we do.
local function wake(holders, queue, limit, coordinator, freed)
  local ours = {}
  local head = redis.call('ZRANGE', queue, 0, 0)[1]
  if not head then return ours end

  local count = redis.call('ZCARD', holders)
  local last = 0
  if exclusive(head) then
    if count > 0 then return ours end
  else
    if count >= limit and not freed then return ours end
    if count > 0 and exclusive(redis.call('ZRANGE', holders, 0, 0)[1]) then return ours end
    last = math.max(0, limit - count - 1)
  end

  local others = {}
  for _, token in ipairs(redis.call('ZRANGE', queue, 0, int(last))) do
    local owner = coordinator_of(token)
    if owner == coordinator then
      ours[#ours + 1] = token
    else
      others[owner] = others[owner] and (others[owner] .. ' ' .. token) or token
    end
  end
  for owner, tokens in pairs(others) do
    hint(owner, tokens)
  end
  return ours
end

-- Milliseconds after which a coordinator should look again without a hint. The head's coordinator watches the holder;
-- every other coordinator watches the head. While the lock is free, its head has been woken and is on its way:
-- looking at once, again and again, would only hold it up. Only a lost hint costs this time.
local function look_in(holders, queue, alive, now, delay, coordinator)
  local head = redis.call('ZRANGE', queue, 0, 0)[1]
  if head and coordinator_of(head) ~= coordinator then
    return tonumber(redis.call('ZSCORE', alive, head) or now) - now
  end
  local first = redis.call('ZRANGE', holders, 0, 0, 'WITHSCORES')
  return first[2] and (tonumber(first[2]) + delay - now) or LOST_HINT
end
