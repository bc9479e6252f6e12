-- ABANDON: give up an acquisition whose outcome is not known or not wanted any more: release it,
-- or leave the queue. The tombstone refuses an ENTER that is still on its way.
-- Returns {1, tokens of the calling coordinator to wake ...}.
local holders, queue, alive, done = KEYS[1], KEYS[2], KEYS[3], KEYS[5]
local token, limit, delay, remember = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local now = math.floor(time_us() / 1000)

redis.pcall('SET', done, 'a', 'PX', remember) -- even when memory is short, the rest is done
redis.call('ZREM', holders, token)
redis.call('ZREM', queue, token)
redis.call('ZREM', alive, token)
purge_holders(holders, now, delay)
purge_waiters(queue, alive, now)
return first_then(1, wake(holders, queue, limit, coordinator_of(token), true))
