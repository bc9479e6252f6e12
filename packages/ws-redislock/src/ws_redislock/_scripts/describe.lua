-- DESCRIBE: a lock for operators, without changing anything.
-- Returns {the last fence or 0, number of waiters, token of a holder, ms for which its lease is valid, ...}.
local holders, queue, fence = KEYS[1], KEYS[2], KEYS[4]
local now = math.floor(time_us() / 1000)
local reply = {tonumber(redis.call('GET', fence) or 0), redis.call('ZCARD', queue)}

local held = redis.call('ZRANGEBYSCORE', holders, int(now + 1), '+inf', 'WITHSCORES')
for i = 1, #held, 2 do
  reply[#reply + 1] = held[i]
  reply[#reply + 1] = tonumber(held[i + 1]) - now
end
return reply
