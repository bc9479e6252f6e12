-- OPEN RUNS: the runs of a task that were claimed and have not been marked done.
local time = redis.call('TIME')
return redis.call('ZRANGEBYSCORE', KEYS[1], time[1] * 1000, '+inf', 'LIMIT', 0, 1000)
