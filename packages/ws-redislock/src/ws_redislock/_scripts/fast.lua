-- FAST: the common case of many ENTERs and RELEASEs at once, on locks that nobody else is at.
-- Whatever is not the common case is left alone, for the script that knows all cases.
-- KEYS: holders, queue, fence, done of each. ARGV of each: 'E', token, lease, delay and life of the fence; or
-- 'R', token and how long to remember the release (of a lock with one holder).
-- Returns for each: the fence or 1 when it was done, 0 when it was left alone.
local call = redis.call
local time = call('TIME')
local us = time[1] * 1000000 + time[2]
local now = math.floor(us / 1000)
local replies = {}
local a = 1

for n = 1, #KEYS / 4 do
  local i = 4 * n
  local holders, queue, fence, done = KEYS[i - 3], KEYS[i - 2], KEYS[i - 1], KEYS[i]
  local kind, token, number, delay, fence_ttl = ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4]
  local reply = 0

  a = a + (kind == 'E' and 5 or 3)

  if kind == 'E' then
    if call('EXISTS', holders, queue, done) == 0 then
      call('ZADD', holders, now + number, token)
      call('PEXPIRE', holders, number + delay)
      reply = us
      local before = call('SET', fence, reply, 'PX', fence_ttl, 'GET')
      if before and tonumber(before) >= reply then
        reply = tonumber(before) + 1
        call('SET', fence, reply, 'PX', fence_ttl)
      end
    end
  elseif call('EXISTS', queue) == 0 and call('ZREM', holders, token) == 1 then
    redis.pcall('SET', done, 'r', 'PX', number)
    reply = 1
  end

  replies[n] = reply
end
return replies
