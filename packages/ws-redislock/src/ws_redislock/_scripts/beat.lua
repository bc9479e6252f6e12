-- BEAT: one heartbeat for all waiters that a coordinator has on one lock, and a look at the lock. Without tokens it
-- is the look alone, whose cost does not grow with the waiters.
-- Returns {look in ms, tokens of the calling coordinator that must ENTER again ...}: those that could hold
-- the lock now, and those that the queue does not know (any more).
local holders, queue, alive = KEYS[1], KEYS[2], KEYS[3]
local coordinator, heartbeat, limit, delay = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = math.floor(time_us() / 1000)
local look = {}

for first = 5, #ARGV, 1000 do -- Lua passes a few thousand arguments at most
  local last = math.min(first + 999, #ARGV)
  local places = redis.call('ZMSCORE', queue, unpack(ARGV, first, last))
  local beats = {}
  for i = first, last do
    if places[i - first + 1] then
      beats[#beats + 1] = int(now + heartbeat)
      beats[#beats + 1] = ARGV[i]
    else
      look[#look + 1] = ARGV[i]
    end
  end
  if #beats > 0 then redis.call('ZADD', alive, unpack(beats)) end
end
if #look < #ARGV - 4 then
  keep(queue, heartbeat + 1000)
  keep(alive, heartbeat + 1000)
end

purge_holders(holders, now, delay)
purge_waiters(queue, alive, now)
for _, token in ipairs(wake(holders, queue, limit, coordinator)) do
  look[#look + 1] = token
end
return first_then(look_in(holders, queue, alive, now, delay, coordinator), look)
