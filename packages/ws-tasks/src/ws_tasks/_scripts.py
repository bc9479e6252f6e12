"""The Lua scripts of a queue: what must happen in one step on the server.

A queue has a stream per priority, a sorted set of jobs that are due later, a stream of dead letters,
and two hashes: ``live`` has the state of each job that has not ended, with the key that keeps a unique
job alone, and ``unique`` has the job of each such key. All keys are in one hash slot.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Script:
    """A script, known to the server by its digest."""

    name: str
    text: str = field(repr=False)
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


# What the scripts share. A value of `live` is a state and, after a space, the key of a unique job.
_STATES = """
local function read(live, job)
  local value = redis.call('HGET', live, job)
  if not value then return nil, '' end
  local state, key = string.match(value, '^(%a+) ?(.*)$')
  return state, key
end
local function write(live, job, state, key)
  redis.call('HSET', live, job, key == '' and state or (state .. ' ' .. key))
end
local function release(unique, key, job)
  if key ~= '' and redis.call('HGET', unique, key) == job then redis.call('HDEL', unique, key) end
end
-- Return whether the job was cancelled; otherwise it runs from now on.
local function begin(live, job)
  if job == '' then return 0 end
  local state, key = read(live, job)
  if state == 'cancelled' then return 1 end
  if state then write(live, job, 'running', key) end
  return 0
end
local function fields(entry)
  local data, job = '', ''
  for i = 1, #entry, 2 do
    if entry[i] == 'data' then data = entry[i + 1] elseif entry[i] == 'job' then job = entry[i + 1] end
  end
  return data, job
end
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""


def _script(name: str, text: str) -> Script:
    return Script(name, _STATES + text)


# The request may be repeated: an id of a request that is known adds nothing. Returns whether the job was
# added, and its id, or that of the unique job in whose place this one would be.
# `last` is the last job of a chain: it waits from the first step on, and when it was cancelled no more
# steps are added.
ADD = _script(
    "add",
    """
local stream, delayed, seen, live, unique = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local data, delay, keep, job = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local key, last, priority = ARGV[5], ARGV[6], ARGV[7]
if key ~= '' then
  local owner = redis.call('HGET', unique, key)
  if owner and owner ~= job then return {0, owner} end
end
if last ~= '' and read(live, last) == 'cancelled' then
  redis.call('HDEL', live, last)
  return {0, job}
end
if not redis.call('SET', seen, '1', 'NX', 'PX', keep) then return {0, job} end
if key ~= '' then redis.call('HSET', unique, key, job) end
if last ~= '' and last ~= job then write(live, last, 'waiting', '') end
if delay > 0 then
  write(live, job, 'delayed', key)
  redis.call('ZADD', delayed, string.format('%.0f', now() + delay), cmsgpack.pack({priority, job, data}))
else
  write(live, job, 'queued', key)
  redis.call('XADD', stream, '*', 'data', data, 'job', job)
end
return {1, job}
""",
)

# Returns the milliseconds until the next delayed job is due, -1 without any.
MOVE_DUE = _script(
    "move_due",
    """
local delayed, live = KEYS[1], KEYS[2]
local streams = {high = KEYS[3], normal = KEYS[4], low = KEYS[5]}
local moment = now()
for _, member in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', moment, 'LIMIT', 0, 200)) do
  local found = cmsgpack.unpack(member)
  local state, key = read(live, found[2])
  if state == 'cancelled' then
    redis.call('HDEL', live, found[2])
  else
    write(live, found[2], 'queued', key)
    redis.call('XADD', streams[found[1]], '*', 'data', found[3], 'job', found[2])
  end
  redis.call('ZREM', delayed, member)
end
local first = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
if not first[2] then return -1 end
return math.max(0, tonumber(first[2]) - moment)
""",
)

# New messages in the order of priorities: {stream, id, data, job, cancelled}.
FETCH = _script(
    "fetch",
    """
local live, group, consumer, left = KEYS[4], ARGV[1], ARGV[2], tonumber(ARGV[3])
local found = {}
for i = 1, 3 do
  if left > 0 then
    local got = redis.pcall('XREADGROUP', 'GROUP', group, consumer, 'COUNT', left, 'STREAMS', KEYS[i], '>')
    if got and got.err then
      -- What another stream has given is delivered, and must not get lost with the reply.
      if #found == 0 then return got end
      return found
    end
    for _, entry in ipairs(got and got[1][2] or {}) do
      local data, job = fields(entry[2])
      found[#found + 1] = {i, entry[1], data, job, begin(live, job)}
      left = left - 1
    end
  end
end
return found
""",
)

# Notes that jobs run; returns for each whether it was cancelled.
BEGIN = _script(
    "begin",
    """
local found = {}
for i, job in ipairs(ARGV) do found[i] = begin(KEYS[1], job) end
return found
""",
)

# In one step, so that what is acknowledged is gone. A job that was enqueued again under its id, by one of
# taskiq's own retries, is not forgotten.
DONE = _script(
    "done",
    """
local stream, live, unique, group = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
for i = 2, #ARGV, 2 do
  local id, job = ARGV[i], ARGV[i + 1]
  redis.call('XACK', stream, group, id)
  redis.call('XDEL', stream, id)
  local state, key = read(live, job)
  if state == 'running' or state == 'cancelled' then
    redis.call('HDEL', live, job)
    release(unique, key, job)
  end
end
return 1
""",
)

DEAD_LETTER = _script(
    "dead_letter",
    """
local stream, dead, live, unique = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, id, job = ARGV[1], ARGV[2], ARGV[3]
redis.call('XADD', dead, '*', 'data', ARGV[4], 'reason', ARGV[5], 'deliveries', ARGV[6])
redis.call('XACK', stream, group, id)
redis.call('XDEL', stream, id)
local state, key = read(live, job)
if state then
  redis.call('HDEL', live, job)
  release(unique, key, job)
end
return 1
""",
)

# Returns the previous state. The key of a unique job is free at once.
CANCEL = _script(
    "cancel",
    """
local state, key = read(KEYS[1], ARGV[1])
if not state then return '' end
release(KEYS[2], key, ARGV[1])
write(KEYS[1], ARGV[1], 'cancelled', '')
return state
""",
)

# Renewed is only what is still this consumer's: one that was stopped must not take back what another
# worker has in hand. Returns the messages that are lost, and the jobs that were cancelled.
RENEW = _script(
    "renew",
    """
local stream, live, group, consumer = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local lost, cancelled = {}, {}
for i = 3, #ARGV, 2 do
  local found = redis.call('XPENDING', stream, group, ARGV[i], ARGV[i], 1, consumer)
  if #found == 1 then
    redis.call('XCLAIM', stream, group, consumer, 0, ARGV[i], 'JUSTID')
  else
    lost[#lost + 1] = ARGV[i]
  end
  if read(live, ARGV[i + 1]) == 'cancelled' then cancelled[#cancelled + 1] = ARGV[i + 1] end
end
return {lost, cancelled}
""",
)

RECOUNT = _script(
    "recount",
    """
local found = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])
if #found == 0 then return 0 end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'RETRYCOUNT', ARGV[4], 'JUSTID')
return 1
""",
)

# What was delivered and never begun does not count as a delivery: the caller says how many do.
HAND_BACK = _script(
    "hand_back",
    """
local stream, live, group, consumer, idle, heir = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
for i = 5, #ARGV, 3 do
  local id, job, count = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if #redis.call('XPENDING', stream, group, id, id, 1, consumer) == 1 then
    redis.call('XCLAIM', stream, group, heir, 0, id, 'IDLE', idle, 'RETRYCOUNT', count, 'JUSTID')
    local state, key = read(live, job)
    if state == 'running' then write(live, job, 'queued', key) end
  end
end
return 1
""",
)

LEAVE = _script(
    "leave",
    """
local stream, group, consumer, idle, heir = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
for _, entry in ipairs(redis.call('XPENDING', stream, group, '-', '+', 10000, consumer)) do
  redis.call('XCLAIM', stream, group, heir, 0, entry[1], 'IDLE', idle,
             'RETRYCOUNT', math.max(0, entry[4] - 1), 'JUSTID')
end
if #redis.call('XPENDING', stream, group, '-', '+', 1, consumer) == 0 then
  redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer)
end
return 1
""",
)

# Returns the cursor and the messages whose lease has ended: {id, data, job, cancelled, deliveries}. The last
# delivery that is allowed is not counted here but when it begins: until then, what ends a worker is
# something else.
RECLAIM = _script(
    "reclaim",
    """
local stream, live, group, consumer = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local got = redis.call('XAUTOCLAIM', stream, group, consumer, ARGV[3], ARGV[4], 'COUNT', ARGV[5])
local most = tonumber(ARGV[6])
local found = {}
for _, entry in ipairs(got[2]) do
  local pending = entry and redis.call('XPENDING', stream, group, entry[1], entry[1], 1)
  if pending and pending[1] then
    local number, data, job = pending[1][4], fields(entry[2])
    found[#found + 1] = {entry[1], data, job, begin(live, job), number}
    if number == most and most > 1 then
      redis.call('XCLAIM', stream, group, consumer, 0, entry[1], 'RETRYCOUNT', number - 1, 'JUSTID')
    end
  end
end
return {got[1], found}
""",
)

# The first result stands: a second one is of a job that was run twice, or was cancelled meanwhile, or it
# is the same request once more. Returns nothing, or the result that stands.
SAVE = Script(
    "save",
    """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  if ARGV[3] ~= '' then redis.call('PUBLISH', ARGV[3], ARGV[4]) end
  return false
end
return redis.call('GET', KEYS[1])
""",
)
