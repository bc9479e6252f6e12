-- A log of every hit: exact to the microsecond, at the price of one entry per hit in the window.
-- State of a key: LIST "time before cost" in order of time; `before` is the sum of all costs before the
-- entry, modulo 2^52. So any stretch of the list is summed up by its two ends, and what has left the
-- window is found by halving: no hit walks through the entries, however many there are.
-- ARGV: window, limit, then the cost of a hit on each key.
-- Returns for each key: allowed, remaining, retry after, reset after.
local call = redis.call
local window, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = call('TIME')
local clock = time[1] * 1000000 + time[2]
local MODULUS = 4503599627370496

local function entry(key, index) -- time, sum before it, its cost; nothing at all for what is none
  local text = call('LINDEX', key, index)
  local at, before, cost = string.match(text or '', '^(%d+) (%d+) (%d+)$')
  return tonumber(at), tonumber(before), tonumber(cost)
end

-- The first index from `from` up to `last` that fits, given that all behind it fit too; `last` is not tried.
local function first_that(fits, from, last)
  local step, before = 1, from - 1
  while before + step < last and not fits(before + step) do
    before = before + step
    step = 2 * step
  end
  last = math.min(last, before + step)
  while last - before > 1 do
    local middle = math.floor((before + last) / 2)
    if fits(middle) then last = middle else before = middle end
  end
  return last
end

local function hit(key, cost)
  local newest = redis.pcall('LINDEX', key, -1)
  if type(newest) == 'table' and not string.find(newest.err, 'WRONGTYPE', 1, true) then error(newest) end
  local now, total, last, first = clock, 0, nil, nil
  local last_before, last_cost

  if newest then
    if type(newest) == 'string' then last, last_before, last_cost = entry(key, -1) end
    if not last or last - now > window or last <= now - window then
      call('DEL', key) -- somebody else's key, a clock that stepped back further than a window, or all is over
      last = nil
    elseif last > now then
      now = last -- the server's clock stepped back a little: what was counted goes on counting
    end
  end

  local length = last and call('LLEN', key) or 0
  if last then
    local over = first_that(function(index)
      return (entry(key, index) or 0) > now - window
    end, 0, length - 1)
    if over > 0 then
      call('LTRIM', key, over, -1)
      length = length - over
    end
    local _, before = entry(key, 0)
    first = before
    total = (last_before + last_cost - first) % MODULUS
  end

  local allowed, retry = 1, 0
  if total + cost > limit then
    -- Enough has left the window when the entries before some index have: the last of those decides.
    local excess = total + cost - limit
    local index = first_that(function(index)
      local _, before = entry(key, index)
      return ((before or 0) - first) % MODULUS >= excess
    end, 1, length)
    allowed, retry = 0, (entry(key, index - 1) or now) + window - clock
  elseif cost > 0 then
    local before = last and (last_before + last_cost) % MODULUS or 0
    call('RPUSH', key, string.format('%.0f %.0f %.0f', now, before, cost))
    total, last = total + cost, now
  end

  local reset = last and last + window - clock or 0
  if last and (allowed == 1 and cost > 0 or call('PTTL', key) < 0) then
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
