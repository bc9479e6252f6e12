"""A queue of jobs in a Redis stream: leases that are renewed, a delivery limit, dead letters, delays."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from redis import exceptions

__all__ = ("TRANSIENT", "Delivery", "StreamQueue")

TRANSIENT = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    OSError,
    # What servers and clients say while a fail-over is under way.
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,
    exceptions.SlotNotCoveredError,
)
"""Errors after which a request is worth another attempt; each of them may have arrived."""

_GROUP = "workers"
_RETURNED = "returned"  # the consumer of messages that were handed back
_AT_ONCE = 2_000_000_000  # an idle time in milliseconds that is longer than any lease
_SEEN = 600_000  # milliseconds for which the id of a job is known, so that a repeated request adds nothing

# The script may be repeated: an id that is known adds nothing.
_ADD = """
local jobs, delayed, seen = KEYS[1], KEYS[2], KEYS[3]
local data, delay, keep = ARGV[1], tonumber(ARGV[2]), ARGV[3]
if not redis.call('SET', seen, '1', 'NX', 'PX', keep) then return 0 end
if delay > 0 then
  local time = redis.call('TIME')
  local due = time[1] * 1000 + math.floor(time[2] / 1000) + delay
  redis.call('ZADD', delayed, string.format('%.0f', due), data)
else
  redis.call('XADD', jobs, '*', 'data', data)
end
return 1
"""

# Returns the milliseconds until the next delayed job is due, -1 without any.
_MOVE_DUE = """
local jobs, delayed = KEYS[1], KEYS[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, data in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, 200)) do
  redis.call('XADD', jobs, '*', 'data', data)
  redis.call('ZREM', delayed, data)
end
local first = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
if not first[2] then return -1 end
return math.max(0, tonumber(first[2]) - now)
"""

# In one step, so that what is acknowledged is gone. Returns 0 when another worker was first.
_DONE = """
local done = redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
return done
"""

_BURY = """
redis.call('XADD', KEYS[2], '*', 'data', ARGV[3], 'reason', ARGV[4], 'deliveries', ARGV[5])
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
return 1
"""

# Renewed is only what is still this consumer's: one that was stopped must not take back what another
# worker has in hand. Returns the ids that are lost.
_RENEW = """
local lost = {}
for i = 3, #ARGV do
  local found = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])
  if #found == 1 then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
"""

_RECOUNT = """
local found = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])
if #found == 0 then return 0 end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'RETRYCOUNT', ARGV[4], 'JUSTID')
return 1
"""

# What was delivered and never begun does not count as a delivery.
_HAND_BACK = """
local group, consumer, idle = ARGV[1], ARGV[2], ARGV[3]
local function back(entry)
  redis.call('XCLAIM', KEYS[1], group, ARGV[4], 0, entry[1], 'IDLE', idle,
             'RETRYCOUNT', math.max(0, entry[4] - 1), 'JUSTID')
end
if #ARGV == 4 then
  for _, entry in ipairs(redis.call('XPENDING', KEYS[1], group, '-', '+', 10000, consumer)) do back(entry) end
  if #redis.call('XPENDING', KEYS[1], group, '-', '+', 1, consumer) == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], group, consumer)
  end
else
  for i = 5, #ARGV do
    local found = redis.call('XPENDING', KEYS[1], group, ARGV[i], ARGV[i], 1, consumer)
    if found[1] then back(found[1]) end
  end
end
return 1
"""

# Returns the cursor and the messages whose lease has ended: id, data, how often it was delivered. The last
# delivery that is allowed is not counted here but when it begins: until then, what ends a worker is
# something else.
_RECLAIM = """
local group, consumer, lease, cursor, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local most = tonumber(ARGV[6])
local got = redis.call('XAUTOCLAIM', KEYS[1], group, consumer, lease, cursor, 'COUNT', count)
local found = {}
for _, entry in ipairs(got[2]) do
  if entry then
    local pending = redis.call('XPENDING', KEYS[1], group, entry[1], entry[1], 1)
    if pending[1] then
      local number = pending[1][4]
      found[#found + 1] = {entry[1], entry[2][2], number}
      if number == most and most > 1 then
        redis.call('XCLAIM', KEYS[1], group, consumer, 0, entry[1], 'RETRYCOUNT', number - 1, 'JUSTID')
      end
    end
  end
end
return {got[1], found}
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that a worker has in hand."""

    id: str
    data: bytes
    number: int  # how often it has been delivered, this time included


class StreamQueue:
    """One queue: its stream, the jobs that are due later, and the dead letters."""

    def __init__(self, client: Any, name: str, lease: float) -> None:  # Any: redis-py's clients are untyped
        self._client = client
        self._prefix = f"wst:{{{name}}}:"
        self._lease = round(lease * 1000)
        self._cursor = "0-0"
        self.consumer: str = secrets.token_hex(8)
        self.jobs: str = f"{self._prefix}jobs"
        self.delayed: str = f"{self._prefix}delayed"
        self.dead: str = f"{self._prefix}dead"

    async def ensure_group(self) -> None:
        """Create the stream and its group, which reads from the very first message."""
        try:
            await self._client.xgroup_create(self.jobs, _GROUP, id="0", mkstream=True)
        except exceptions.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def add(self, job_id: str, data: bytes, delay: float = 0.0, keep: float | None = None) -> bool:
        """Add a job once; return False when its id is known."""
        seen = f"{self._prefix}seen:{job_id}"
        kept = _SEEN if keep is None else round(keep * 1000)
        added = await self._eval(_ADD, (self.jobs, self.delayed, seen), data, round(delay * 1000), kept)
        return int(added) == 1

    async def fetch(self, count: int, block: float) -> list[Delivery]:
        """Fetch new messages, at most so many, and wait for the first one for some seconds."""
        found = await self._client.xreadgroup(
            _GROUP, self.consumer, {self.jobs: ">"}, count=count, block=round(block * 1000)
        )

        if isinstance(found, dict):  # RESP3
            found = [(name, batches[0]) for name, batches in found.items()]

        return [
            Delivery(_text(message), _bytes(fields.get(b"data", fields.get("data", b""))), 1)
            for _, messages in found or ()
            for message, fields in messages
        ]

    async def reclaim(self, count: int, most: int) -> list[Delivery]:
        """Take messages whose lease has ended; the last of ``most`` deliveries is left to `recount`."""
        cursor, found = await self._eval(
            _RECLAIM, (self.jobs,), _GROUP, self.consumer, self._lease, self._cursor, count, most
        )
        self._cursor = _text(cursor)
        return [Delivery(_text(message), _bytes(data), int(number)) for message, data, number in found]

    async def renew(self, ids: list[str]) -> set[str]:
        """Begin the lease of messages anew; return those that another worker has."""
        return {_text(lost) for lost in await self._eval(_RENEW, (self.jobs,), _GROUP, self.consumer, *ids)}

    async def recount(self, delivery: Delivery, number: int) -> bool:
        """Set how often a message counts as delivered; return False when it is not this consumer's."""
        keys = (self.jobs,)
        return int(await self._eval(_RECOUNT, keys, _GROUP, self.consumer, delivery.id, number)) == 1

    async def done(self, delivery: Delivery) -> bool:
        """Acknowledge and delete a message; return False when another worker has."""
        return int(await self._eval(_DONE, (self.jobs,), _GROUP, delivery.id)) == 1

    async def bury(self, delivery: Delivery, reason: str) -> None:
        """Move a message to the dead letters."""
        keys = (self.jobs, self.dead)
        await self._eval(_BURY, keys, _GROUP, delivery.id, delivery.data, reason, delivery.number)

    async def hand_back(self, ids: list[str]) -> None:
        """Let other workers take messages at once, as if they had not been delivered here."""
        if ids:
            await self._eval(_HAND_BACK, (self.jobs,), _GROUP, self.consumer, _AT_ONCE, _RETURNED, *ids)

    async def leave(self) -> None:
        """Hand back everything that is not acknowledged, and remove the consumer."""
        await self._eval(_HAND_BACK, (self.jobs,), _GROUP, self.consumer, _AT_ONCE, _RETURNED)

    async def move_due(self) -> float | None:
        """Add delayed jobs that are due; return the seconds until the next one, or None."""
        wait = int(await self._eval(_MOVE_DUE, (self.jobs, self.delayed)))
        return None if wait < 0 else wait / 1000

    async def _eval(self, script: str, keys: tuple[str, ...], *args: object) -> Any:  # Any: a script's reply
        return await self._client.eval(script, len(keys), *keys, *args)


def _text(value: Any) -> str:  # Any: bytes or text, as the client decodes
    return value.decode() if isinstance(value, bytes) else str(value)


def _bytes(value: Any) -> bytes:  # Any: bytes or text, as the client decodes
    return value.encode() if isinstance(value, str) else bytes(value)
