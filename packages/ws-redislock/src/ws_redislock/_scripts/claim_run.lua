-- CLAIM RUN: the first to ask gets a run, until it gives it back, marks it done, or its time is over.
-- Repeating it with the same token is harmless.
-- Returns {1, fence, 0, 0, -1} claimed; {0, 0, done, ms until the holder's time is over, ms since another
-- claimer claimed a run of this task, -1 if none is remembered}.
local run, last, open = KEYS[1], KEYS[2], KEYS[3]
local token, claimer, ttl, keep, id = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local time = redis.call('TIME')
local us = time[1] * 1000000 + time[2]
local now = math.floor(us / 1000)

local value = redis.call('GET', run)
if value and string.sub(value, 1, #token + 1) == token .. ' ' then
  return {1, tonumber(string.sub(value, #token + 2)), 0, 0, -1}
end

local fence, at, by = string.match(redis.call('GET', last) or '', '^(%d+) (%d+) (.*)$')

if value then
  local done = string.sub(value, 1, 5) == 'done ' and 1 or 0
  local idle = by and by ~= claimer and by ~= '' and math.max(0, now - tonumber(at)) or -1
  return {0, 0, done, math.max(0, redis.call('PTTL', run)), idle}
end

-- Strictly above every earlier fence: the clock, or the stored one plus 1 if that is ahead.
if fence and tonumber(fence) >= us then us = tonumber(fence) + 1 end
local text = string.format('%.0f', us)
if claimer ~= '' then at, by = string.format('%.0f', now), claimer end
redis.call('SET', run, token .. ' ' .. text, 'PX', ttl)
redis.call('SET', last, text .. ' ' .. (at or '0') .. ' ' .. (by or ''), 'PX', keep)
redis.call('ZREMRANGEBYSCORE', open, '-inf', now)
redis.call('ZADD', open, string.format('%.0f', now + keep), id)
redis.call('PEXPIRE', open, keep)
return {1, us, 0, 0, -1}
