-- Buckets: a window slides over 16 buckets; whatever bucket it touches counts in full, so that
-- no window of that length ever holds more than the limit.
-- State of a key: HASH bucket number -> count. All times in integer microseconds of the server.
-- ARGV: window, limit, then the cost of a hit on each key.
-- Returns for each key: allowed, remaining, retry after, reset after.
local call = redis.call
local window, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local width = math.ceil(window / 16)
local time = call('TIME')
local clock = time[1] * 1000000 + time[2]

local function gone(bucket) -- microseconds until a bucket counts no more
  return (bucket + 1) * width + window - clock
end

local function hit(key, cost)
  local state = redis.pcall('HGETALL', key)
  if state.err then -- a key of another type; any other error is the caller's
    if not string.find(state.err, 'WRONGTYPE', 1, true) then error(state) end
    call('DEL', key)
    state = {}
  end

  -- When the server's clock steps back by no more than a window, the time stands still at the newest
  -- bucket: what was counted goes on counting. When it steps back further, the key begins anew.
  local current = math.floor(clock / width)
  local latest = math.floor((clock + window) / width)
  for i = 1, #state, 2 do
    local bucket = tonumber(state[i])
    if bucket and bucket > current and bucket <= latest then current = bucket end
  end
  local oldest = math.floor((math.max(clock, current * width) - window) / width)

  local counts, numbers, total = {}, {}, 0
  for i = 1, #state, 2 do
    local bucket, count = tonumber(state[i]), tonumber(state[i + 1])
    if bucket and count and bucket >= oldest and bucket <= current then
      numbers[#numbers + 1] = bucket
      counts[bucket] = count
      total = total + count
    else
      call('HDEL', key, state[i])
    end
  end

  if cost > 0 and total + cost <= limit then
    call('HINCRBY', key, current, cost)
    if not counts[current] or call('PTTL', key) < 0 then -- all hits of a bucket end at the same time
      call('PEXPIRE', key, math.ceil(gone(current) / 1000))
    end
    return 1, limit - total - cost, 0, gone(current)
  end

  table.sort(numbers)
  local newest = numbers[#numbers]
  local reset = newest and gone(newest) or 0
  if newest and call('PTTL', key) < 0 then
    call('PEXPIRE', key, math.ceil(reset / 1000))
  end
  if cost == 0 then return 1, math.max(0, limit - total), 0, reset end

  local left, retry = total, 0
  for _, bucket in ipairs(numbers) do
    left = left - counts[bucket]
    retry = gone(bucket)
    if left + cost <= limit then break end
  end
  return 0, math.max(0, limit - total), retry, reset
end

local replies = {}
for i = 1, #KEYS do
  local n = #replies
  replies[n + 1], replies[n + 2], replies[n + 3], replies[n + 4] = hit(KEYS[i], tonumber(ARGV[2 + i]))
end
return replies
