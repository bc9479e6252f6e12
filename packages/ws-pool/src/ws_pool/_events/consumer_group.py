"""The commands of one consumer of a stream's group, and the reading of their replies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from redis import exceptions as driver
from redis.asyncio import Redis
from redis.client import NEVER_DECODE

from ws_pool._events.listeners import Event, dump
from ws_pool._events.source import RedisSource, repeating

_PAGE: Final = 100  # messages of one look back
_BLOCK: Final = 1000  # milliseconds to wait for what is new
_RAW: Final = {NEVER_DECODE: True}  # one entry that is not text must not fail the whole reply

_WAITING: Final = "waiting:"
"""Names of consumers without a process: each holds the messages of a tag until it has a listener."""

_FORGET: Final = """\
local forgotten = 0
for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for index = 1, #fields, 2 do consumer[fields[index]] = fields[index + 1] end
  local chosen = ARGV[2] == '' and consumer.idle >= tonumber(ARGV[3]) or consumer.name == ARGV[2]
  if chosen and consumer.pending == 0 then
    forgotten = forgotten + 1
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
  end
end
return forgotten
"""

Entry = tuple[str, str | None]
"""A message's id and its text; None for one that was deleted while it was pending."""

CountedEntry = tuple[str, str | None, int]
"""The same, and how often the message was delivered, this time included."""


class _Pending(NamedTuple):
    """A message that was delivered and not acknowledged."""

    id: str
    consumer: str
    idle: float  # seconds since the last delivery
    delivered: int  # times


class ConsumerGroup:
    """A consumer group of a stream, as one of its consumers sees it."""

    def __init__(self, pool: RedisSource, stream: str, group: str, consumer: str, dead_letters: str) -> None:
        self._pool = pool
        self._stream = stream
        self._group = group
        self._dead_letters = dead_letters
        self._client: Redis | None = None
        self._repeating: Redis | None = None
        self.consumer = consumer

    @property
    def stream(self) -> str:
        """The stream's key."""
        return self._stream

    async def publish(self, event: Event) -> str:
        """Add an event to the stream, if need be twice, and return its id."""
        text = dump(event)
        return text_of(await self._repeat("XADD", self._stream, "*", FIELD, text))

    async def create(self) -> None:
        """Create the group, from the stream's beginning, unless it is there."""
        try:
            await self._repeat("XGROUP CREATE", self._stream, self._group, "0", "MKSTREAM")
        except driver.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def read_new(self, count: int) -> list[Entry]:
        """Wait up to a second for messages that no consumer has, and take some."""
        return await self._read(">", count, "BLOCK", _BLOCK)

    async def read_own(self, cursor: str) -> list[CountedEntry]:
        """
        Read messages behind the cursor that are pending for this consumer, with their delivery counts.

        To the server, that is one more delivery of each.
        """
        entries = await self._read(cursor, _PAGE)

        if not entries:
            return []

        pending = await self._pending(entries[0][0], entries[-1][0], _PAGE, self.consumer)
        counts = {entry.id: entry.delivered for entry in pending}
        # One that is missing was acknowledged in between. It was delivered before, and now.
        return [(entry_id, text, counts.get(entry_id, 2)) for entry_id, text in entries]

    async def claim(self, idle: float, cursor: str, count: int) -> tuple[str, list[CountedEntry]]:
        """Take over messages idle for some seconds; return the next cursor (empty at the end) and them."""
        # Not XAUTOCLAIM, which would also take the messages that wait for a listener.
        found = await self._pending(cursor, "+", _PAGE, idle=idle)
        chosen = [entry for entry in found if not entry.consumer.startswith(_WAITING)][:count]

        if len(chosen) == count:
            return f"({chosen[-1].id}", await self._take(chosen, idle)

        return f"({found[-1].id}" if len(found) == _PAGE else "", await self._take(chosen, idle)

    async def leave_waiting(self, tag: str, entry_ids: Iterable[str], attempts: int) -> None:
        """Leave messages to a consumer that listens to their tag, with the attempts made so far."""
        # They stay pending, so that they cannot be lost, but under a name of their own: no process
        # has them in hand, and a consumer with a listener for the tag finds them by it.
        words = (0, *entry_ids, "RETRYCOUNT", attempts, "JUSTID")
        await self._claim_for(f"{_WAITING}{tag}", *words, parse_justid=True)

    async def waiting_tags(self) -> list[str]:
        """Return the tags with messages that wait for a listener."""
        consumers = await self._pool.redis.xinfo_consumers(self._stream, self._group)
        names = [text_of(consumer["name"]) for consumer in consumers if consumer["pending"]]
        return [name.removeprefix(_WAITING) for name in names if name.startswith(_WAITING)]

    async def take_waiting(self, tag: str, count: int, *, idle: float = 0.0) -> list[CountedEntry]:
        """Take over a tag's messages that have waited for a listener, for some seconds at least."""
        found = await self._pending("-", "+", count, f"{_WAITING}{tag}", idle=idle)
        # Two consumers may look at once: the second finds that the messages are idle no longer.
        return await self._take(found, min((entry.idle for entry in found), default=0.0))

    async def touch(self, entry_ids: Iterable[str]) -> None:
        """Reset the idle time of messages in hand, so that no other consumer claims them."""
        await self._claim_for(self.consumer, 0, *entry_ids, "JUSTID", parse_justid=True)

    async def acknowledge(self, entry_id: str) -> None:
        """Acknowledge a message."""
        await self._repeat("XACK", self._stream, self._group, entry_id)

    async def dead_letter(self, entry_id: str, text: str, reason: str) -> None:
        """Move a message to the dead letters."""
        # Two commands, because on a cluster the two streams may be on two nodes. The message is
        # acknowledged last: after a crash between them it is a dead letter twice, never lost.
        fields = {FIELD: text, "id": entry_id, "group": self._group, "reason": reason}
        await self._repeat("XADD", self._dead_letters, "*", *chain.from_iterable(fields.items()))
        await self._repeat("XACK", self._stream, self._group, entry_id)

    async def trim(self) -> None:
        """Drop what every group has acknowledged."""
        groups = await self._pool.redis.xinfo_groups(self._stream)
        done: list[tuple[int, int]] = []

        for group in groups:
            name, last = text_of(group["name"]), text_of(group["last-delivered-id"])
            pending = await self._pool.redis.xpending(self._stream, name)
            oldest = pending["min"]
            done.append(order_of(text_of(oldest)) if oldest else order_of(last))

        if done:
            first = "-".join(map(str, min(done)))
            await self._pool.redis.xtrim(self._stream, minid=first, approximate=True)

    async def forget_idle(self, seconds: float) -> int:
        """Remove consumers idle for some seconds with nothing pending, and return how many they were."""
        # One that is alive after all comes back by its next read.
        return int(
            await self._execute("EVAL", _FORGET, 1, self._stream, self._group, "", int(seconds * 1000))
        )

    async def leave(self) -> None:
        """Remove this consumer, unless it has something pending."""
        await self._execute("EVAL", _FORGET, 1, self._stream, self._group, self.consumer, 0)

    async def _execute(self, *args: Any, **options: Any) -> Any:  # Any: redis-py's own signature
        return await self._pool.redis.execute_command(*args, **options)

    async def _claim_for(self, consumer: str, *words: Any, **options: Any) -> Any:  # Any: as above
        return await self._execute("XCLAIM", self._stream, self._group, consumer, *words, **options)

    async def _repeat(self, *args: Any) -> Any:  # Any: redis-py's own signature
        """Execute a command that may be executed twice, if need be."""
        if (client := self._pool.redis) is not self._client:
            self._client, self._repeating = client, repeating(client)

        assert self._repeating is not None
        return await self._repeating.execute_command(*args)

    async def _read(self, cursor: str, count: int, *block: str | int) -> list[Entry]:
        reader = ("GROUP", self._group, self.consumer, "COUNT", count, *block)
        reply = await self._execute("XREADGROUP", *reader, "STREAMS", self._stream, cursor, **_RAW)
        return [(text_of(entry_id), payload_of(fields)) for entry_id, fields in entries_of(reply)]

    async def _pending(
        self, first: str, last: str, count: int, *consumer: str, idle: float = 0.0
    ) -> list[_Pending]:
        words = ("IDLE", int(idle * 1000), first) if idle else (first,)
        words = (*words, last, count, *consumer)
        found = await self._execute("XPENDING", self._stream, self._group, *words, parse_detail=True)
        return [
            _Pending(
                text_of(entry["message_id"]),
                text_of(entry["consumer"]),
                int(entry["time_since_delivered"]) / 1000,
                int(entry["times_delivered"]),
            )
            for entry in found
        ]

    async def _take(self, pending: Sequence[_Pending], idle: float) -> list[CountedEntry]:
        """Make this consumer the owner of pending messages that are still idle, and return them."""
        if not pending:
            return []

        counts = {entry.id: entry.delivered + 1 for entry in pending}
        reply = await self._claim_for(self.consumer, int(idle * 1000), *counts, **_RAW)
        entries = [(text_of(entry_id), payload_of(fields)) for entry_id, fields in reply if fields]
        return [(entry_id, text, counts[entry_id]) for entry_id, text in entries]


FIELD: Final = "event"
"""The field of a stream's entry that holds the event."""


def entries_of(reply: Any) -> list[Any]:  # Any: a reply, whose shape depends on the protocol version
    """List the entries of all streams: a mapping or pairs, with the entries or a list that holds them."""
    pairs = reply.items() if isinstance(reply, Mapping) else reply or ()
    found: list[Any] = []

    for _, entries in pairs:
        nested = len(entries) == 1 and isinstance(entries[0], list)
        found.extend(entries[0] if nested else entries)

    return found


def payload_of(fields: Any) -> str | None:  # Any: a reply
    """Return the event of an entry as text; None for an entry that was deleted while it was pending."""
    if fields is None:
        return None

    items = fields.items() if isinstance(fields, Mapping) else zip(fields[::2], fields[1::2], strict=True)
    found = {_shown(name): _shown(value) for name, value in items}
    # A foreign entry is shown as a whole: it goes to the dead letters, where somebody may look at it.
    return found.get(FIELD) or f"fields {found}"


def order_of(entry_id: str) -> tuple[int, int]:
    """Return an id as numbers that compare as the server orders them."""
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def text_of(value: Any) -> str:  # Any: bytes or str
    """Return a reply as text, whether the client decodes or not."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _shown(value: Any) -> str:  # Any: bytes or str
    """Return a field as text, also when it is not UTF-8."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
