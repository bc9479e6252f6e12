-- Buckets: a window slides over 16 buckets; whatever bucket it touches counts in full, so that
-- no window of that length ever holds more than the limit.
-- State: HASH bucket number -> count. All times in integer microseconds of the server.
-- Returns {allowed, remaining, retry after, reset after}.
local key = KEYS[1]
local window, limit, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local width = math.ceil(window / 16)
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local oldest = math.floor((now - window) / width)
local current = math.floor(now / width)

local counts, numbers, old, total = {}, {}, {}, 0
if redis.call('TYPE', key).ok ~= 'hash' then redis.call('DEL', key) end
local state = redis.call('HGETALL', key)
for i = 1, #state, 2 do
  local bucket = tonumber(state[i])
  if bucket and bucket >= oldest and bucket <= current then
    numbers[#numbers + 1] = bucket
    counts[bucket] = tonumber(state[i + 1])
    total = total + counts[bucket]
  else
    old[#old + 1] = state[i]
  end
end
if #old > 0 then redis.call('HDEL', key, unpack(old)) end

local function gone(bucket) -- microseconds until a bucket counts no more
  return (bucket + 1) * width + window - now
end

if total + cost > limit then
  table.sort(numbers)
  local left, retry = total, 0
  for _, bucket in ipairs(numbers) do
    left = left - counts[bucket]
    retry = gone(bucket)
    if left + cost <= limit then break end
  end
  if redis.call('PTTL', key) < 0 then
    redis.call('PEXPIRE', key, math.ceil(gone(current) / 1000))
  end
  return {0, math.max(0, limit - total), retry, numbers[1] and gone(numbers[#numbers]) or 0}
end

if cost > 0 then
  redis.call('HINCRBY', key, string.format('%.0f', current), cost)
  redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(gone(current) / 1000)))
  return {1, limit - total - cost, 0, gone(current)}
end
table.sort(numbers)
return {1, limit - total, 0, numbers[1] and gone(numbers[#numbers]) or 0}
