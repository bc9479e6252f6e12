-- A log of every hit: exact to the microsecond, at the price of one entry per hit in the window.
-- State of a key: LIST "time cost" in order of time, then the total of all costs as the last element.
-- ARGV: window, limit, then the cost of a hit on each key.
-- Returns for each key: allowed, remaining, retry after, reset after.
local call = redis.call
local window, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = call('TIME')
local now = time[1] * 1000000 + time[2]

local function entry(text)
  local at, amount = string.match(text, '^(%d+) (%d+)$')
  return tonumber(at), tonumber(amount)
end

-- Microseconds until enough entries have left the window for a cost.
local function wait_for(key, total, cost)
  local left, index, retry = total, 0, 0
  while left + cost > limit do
    local texts = call('LRANGE', key, index, index + 99)
    if #texts == 0 then break end
    for _, text in ipairs(texts) do
      local at, amount = entry(text)
      left = left - amount
      retry = at + window - now
      if left + cost <= limit then break end
    end
    index = index + 100
  end
  return retry
end

local function hit(key, cost)
  local total = redis.pcall('RPOP', key)
  if type(total) == 'table' then -- somebody else's key
    call('DEL', key)
    total = nil
  end
  total = tonumber(total or 0) or 0

  local newest = call('LINDEX', key, -1)
  local last = newest and entry(newest)
  if newest and (not last or last > now) then -- the server's clock stepped back
    call('DEL', key)
    last = nil
  end

  while true do
    local text = last and call('LINDEX', key, 0)
    if not text then
      total, last = 0, nil
      break
    end
    local at, amount = entry(text)
    if at and at > now - window then break end
    total = total - (amount or 0)
    call('LPOP', key)
  end

  local allowed, retry = 1, 0
  if total + cost > limit then
    allowed, retry = 0, wait_for(key, total, cost)
  elseif cost > 0 then
    total = total + cost
    last = now
    call('RPUSH', key, string.format('%.0f %.0f', now, cost))
  end

  local reset = last and last + window - now or 0
  if last then
    call('RPUSH', key, total)
    call('PEXPIRE', key, math.ceil(reset / 1000) + 1)
  end
  return allowed, limit - total, retry, reset
end

local replies = {}
for i = 1, #KEYS do
  local n = #replies
  replies[n + 1], replies[n + 2], replies[n + 3], replies[n + 4] = hit(KEYS[i], tonumber(ARGV[2 + i]))
end
return replies
