-- RELEASE: give the lock back and wake who comes next. Repeating it says "released" again.
-- Returns {1, tokens of the calling hub to wake ...} released; {0} it was lost before.
local holders, queue, alive, done = KEYS[1], KEYS[2], KEYS[3], KEYS[5]
local token, limit, delay, remember = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local now = math.floor(time_us() / 1000)

if tonumber(redis.call('ZSCORE', holders, token) or 0) <= now then
  return {redis.call('GET', done) == 'r' and 1 or 0}
end

redis.call('ZREM', holders, token)
redis.call('SET', done, 'r', 'PX', remember)
if redis.call('EXISTS', queue) == 0 then return {1} end

purge_holders(holders, now, delay)
purge_waiters(queue, alive, now)
return first_then(1, wake(holders, queue, limit, hub_of(token)))
