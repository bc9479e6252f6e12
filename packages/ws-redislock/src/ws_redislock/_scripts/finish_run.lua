-- FINISH RUN: mark a run as done, so that nobody makes it again. Repeating it is harmless.
-- Returns {1} marked; {0} another has claimed it since: it is made twice.
local run, open = KEYS[1], KEYS[2]
local mine, keep, id = ARGV[1], ARGV[2], ARGV[3]
local value = redis.call('GET', run)
if value and value ~= mine and value ~= 'done ' .. mine then return {0} end
redis.call('SET', run, 'done ' .. mine, 'PX', keep)
redis.call('ZREM', open, id)
return {1}
