-- A token bucket as a generic cell rate algorithm: one number, the theoretical arrival time.
-- The rate is `limit` tokens per `period` microseconds; time is counted in 1/limit microseconds,
-- so that every step is whole numbers and nothing is rounded away.
-- State: STRING "microseconds fraction" of the time at which the bucket is full again.
-- Returns {allowed, remaining, retry after, reset after}.
local key = KEYS[1]
local period, limit, burst, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local capacity = burst * period

if redis.call('TYPE', key).ok ~= 'string' then redis.call('DEL', key) end

local used = 0
local full, fraction = string.match(redis.call('GET', key) or '', '^(%d+) (%d+)$')
if full then
  used = (tonumber(full) - now) * limit + tonumber(fraction)
  if used < 0 then used = 0 end
  if used > capacity then used = capacity end -- the server's clock stepped back
end

local after = used + cost * period
if after > capacity then
  if redis.call('PTTL', key) < 0 then
    redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(used / limit / 1000) + 1))
  end
  return {0, math.floor((capacity - used) / period), math.ceil((after - capacity) / limit), math.ceil(used / limit)}
end

if cost > 0 then
  local whole = math.floor(after / limit)
  redis.call('SET', key, string.format('%.0f %.0f', now + whole, after - whole * limit),
    'PX', string.format('%.0f', math.ceil(whole / 1000) + 1))
end
return {1, math.floor((capacity - after) / period), 0, math.ceil(after / limit)}
