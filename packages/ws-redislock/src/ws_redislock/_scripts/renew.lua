-- RENEW: begin the lease anew, only if it has not ended; never creates anything.
-- Returns {1} renewed; {0} lost.
local holders, fence = KEYS[1], KEYS[4]
local token, lease, delay = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now = math.floor(time_us() / 1000)

if tonumber(redis.call('ZSCORE', holders, token) or 0) <= now then return {0} end

redis.call('ZADD', holders, int(now + lease), token)
keep(holders, lease + delay)
redis.call('PEXPIRE', fence, ARGV[4])
return {1}
