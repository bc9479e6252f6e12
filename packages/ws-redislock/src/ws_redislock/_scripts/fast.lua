-- FAST: the common case of many ENTERs and RELEASEs at once, on locks that nobody else is at.
-- Whatever is not the common case is left alone, for the script that knows all cases.
-- ARGV: the lease, the delay and the life of the fence of all locks, for how long to remember a release (of a lock
-- with one holder); then of each call 'E' or 'R' with the token. KEYS of each: holders, queue, done; for 'E' the
-- fence behind them.
-- Returns for each: the fence or 1 when it was done, 0 when it was left alone.
local call, sub = redis.call, string.sub
local lease, delay, fence_ttl, remember = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local time = call('TIME')
local us = time[1] * 1000000 + time[2]
local now = math.floor(us / 1000)
local replies = {}
local k = 1

for n = 5, #ARGV do
  local holders, queue, done, token = KEYS[k], KEYS[k + 1], KEYS[k + 2], sub(ARGV[n], 2)
  local reply = 0

  if sub(ARGV[n], 1, 1) == 'E' then
    if call('EXISTS', holders, queue, done) == 0 then
      local fence = KEYS[k + 3]
      call('ZADD', holders, now + lease, token)
      call('PEXPIRE', holders, lease + delay)
      reply = us
      local before = call('SET', fence, reply, 'PX', fence_ttl, 'GET')
      if before and tonumber(before) >= reply then
        reply = tonumber(before) + 1
        call('SET', fence, reply, 'PX', fence_ttl)
      end
    end
    k = k + 4
  else
    if call('EXISTS', queue) == 0 and call('ZREM', holders, token) == 1 then
      redis.pcall('SET', done, 'r', 'PX', remember)
      reply = 1
    end
    k = k + 3
  end

  replies[n - 4] = reply
end
return replies
