-- RELEASE: give the lock back and wake who comes next. Repeating it says "released" again.
-- Returns {1, tokens of the calling hub to wake ...} released; {0} it was lost before.
local holders, queue, alive, done = KEYS[1], KEYS[2], KEYS[3], KEYS[5]
local token, limit, delay, remember = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local simple = limit == 1 and delay == 0 -- then the key itself ends with the lease of its one holder
local now

if not simple then
  local time = redis.call('TIME')
  now = math.floor((time[1] * 1000000 + time[2]) / 1000)
end

if not simple and tonumber(redis.call('ZSCORE', holders, token) or 0) <= now
  or redis.call('ZREM', holders, token) == 0 then
  return {redis.call('GET', done) == 'r' and 1 or 0}
end

redis.pcall('SET', done, 'r', 'PX', remember) -- even when memory is short, the release goes on
if redis.call('EXISTS', queue) == 0 then return {1} end

--[[common]]

now = math.floor(time_us() / 1000)
purge_holders(holders, now, delay)
purge_waiters(queue, alive, now)
return first_then(1, wake(holders, queue, limit, hub_of(token)))
