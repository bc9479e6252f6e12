-- A log of every hit: exact to the microsecond, at the price of one entry per hit in the window.
-- State: LIST "time cost" in order of time, then the total of all costs as the last element.
-- Returns {allowed, remaining, retry after, reset after}.
local key = KEYS[1]
local window, limit, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

if redis.call('TYPE', key).ok ~= 'list' then redis.call('DEL', key) end

local function entry(text)
  local at, amount = string.match(text, '^(%d+) (%d+)$')
  return tonumber(at), tonumber(amount)
end

local total = tonumber(redis.call('RPOP', key) or 0) or 0
local newest = redis.call('LINDEX', key, -1)
if newest and entry(newest) > now then redis.call('DEL', key) end -- the server's clock stepped back
while true do
  local text = redis.call('LINDEX', key, 0)
  if not text then
    total = 0
    break
  end
  local at, amount = entry(text)
  if at and at > now - window then break end
  total = total - (amount or 0)
  redis.call('LPOP', key)
end

local allowed = total + cost <= limit
local retry, reset = 0, 0

if allowed and cost > 0 then
  total = total + cost
  redis.call('RPUSH', key, string.format('%.0f %.0f', now, cost))
  reset = window
else
  local last = redis.call('LINDEX', key, -1)
  if last then reset = entry(last) + window - now end
end

if not allowed then
  local left, index = total, 0
  while left + cost > limit do
    local texts = redis.call('LRANGE', key, index, index + 99)
    if #texts == 0 then break end
    for _, text in ipairs(texts) do
      local at, amount = entry(text)
      left = left - amount
      retry = at + window - now
      if left + cost <= limit then break end
    end
    index = index + 100
  end
end

if redis.call('EXISTS', key) == 1 then
  redis.call('RPUSH', key, string.format('%.0f', total))
  redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(math.max(reset, 1) / 1000) + 1))
end
return {allowed and 1 or 0, limit - total, retry, reset}
