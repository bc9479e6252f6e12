-- STATUS: who holds the lock, without changing anything.
-- Returns {ms until the first lease ends or -1, number of waiters, tokens of the holders ...}.
local holders, queue = KEYS[1], KEYS[2]
local now = math.floor(time_us() / 1000)
local held = redis.call('ZRANGEBYSCORE', holders, int(now + 1), '+inf', 'WITHSCORES')
local reply = {held[2] and (tonumber(held[2]) - now) or -1, redis.call('ZCARD', queue)}

for i = 1, #held, 2 do
  reply[#reply + 1] = held[i]
end
return reply
