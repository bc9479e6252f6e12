-- A token bucket as a generic cell rate algorithm: one number, the theoretical arrival time.
-- The rate is `limit` tokens per `period` microseconds; time is counted in 1/limit microseconds,
-- so that every step is whole numbers and nothing is rounded away.
-- State of a key: STRING "microseconds fraction" of the time at which the bucket is full again.
-- ARGV: period, limit, burst, then the cost of a hit on each key.
-- Returns for each key: allowed, remaining, retry after, reset after.
local call = redis.call
local period, limit, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local capacity = burst * period

local function hit(key, cost)
  local state = redis.pcall('GET', key)
  if type(state) == 'table' then -- a key of another type; any other error is the caller's
    if not string.find(state.err, 'WRONGTYPE', 1, true) then error(state) end
    call('DEL', key)
    state = nil
  end

  local used = 0
  local full, fraction = string.match(state or '', '^(%d+) (%d+)$')
  if full then
    used = (full - now) * limit + fraction
    if used < 0 then used = 0 end
    if used > capacity then used = capacity end -- the server's clock stepped back
  end

  local after = used + cost * period
  if state and (after > capacity or cost == 0) and call('PTTL', key) < 0 then
    call('PEXPIRE', key, math.ceil(used / limit / 1000) + 1)
  end
  if after > capacity then
    return 0, math.floor((capacity - used) / period), math.ceil((after - capacity) / limit), math.ceil(used / limit)
  end

  if cost > 0 then
    local whole = math.floor(after / limit)
    call('SET', key, string.format('%.0f %.0f', now + whole, after - whole * limit), 'PX', math.ceil(whole / 1000) + 1)
  end
  return 1, math.floor((capacity - after) / period), 0, math.ceil(after / limit)
end

local replies = {}
for i = 1, #KEYS do
  local n = #replies
  replies[n + 1], replies[n + 2], replies[n + 3], replies[n + 4] = hit(KEYS[i], tonumber(ARGV[3 + i]))
end
return replies
