"""A queue of jobs in Redis streams: leases that are renewed, a delivery limit, dead letters, delays."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from redis import exceptions

from ws_core.backoff import delay
from ws_core.errors import describe
from ws_tasks import _scripts
from ws_tasks._requests import Requests

logger = logging.getLogger("ws_tasks")

T = TypeVar("T")

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

PRIORITIES = ("high", "normal", "low")
"""In the order in which jobs are fetched; each has a stream of its own."""

_GROUP = "workers"
_RETURNED = "returned"  # the consumer of messages that were handed back
_AT_ONCE = 2_000_000_000  # an idle time in milliseconds that is longer than any lease
_SEEN = 600_000  # milliseconds for which a request is known, so that repeating it adds nothing
_BATCH = 500  # messages of one request to renew or to hand back


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that a worker has in hand."""

    stream: str
    id: str
    data: bytes
    number: int  # how often it has been delivered, this time included
    job: str = ""  # the job's id; empty when something else than `StreamQueue.add` has put it there
    cancelled: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Its identity among all messages: two streams may use the same ids."""
        return self.stream, self.id


class Added(NamedTuple):
    """Whether a job was added, and under which id the job is known."""

    added: bool
    job: str


class StreamQueue:
    """One queue: its streams, the jobs that are due later, and the dead letters."""

    def __init__(self, source: object, name: str, lease: float) -> None:
        self._requests = Requests.of(source)
        self._run = self._requests.run
        self._prefix = f"wst:{{{name}}}:"
        self._lease = round(lease * 1000)
        self.consumer: str = secrets.token_hex(8)
        self.jobs: str = f"{self._prefix}jobs"
        self.streams: tuple[str, ...] = (f"{self.jobs}:high", self.jobs, f"{self.jobs}:low")
        self.delayed: str = f"{self._prefix}delayed"
        self.dead: str = f"{self._prefix}dead"
        self.live: str = f"{self._prefix}live"
        self.unique: str = f"{self._prefix}unique"
        self.outcomes: str = f"{self._prefix}outcomes"
        self.cancels: str = f"{self._prefix}cancel"  # the channel on which cancelled jobs are announced
        self._cursors = dict.fromkeys(self.streams, "0-0")

    @property
    def _client(self) -> Any:  # Any: redis-py's clients are untyped
        return self._requests.client

    async def ensure_group(self) -> None:
        """Create the streams and their groups, which read from the very first message."""
        for stream in self.streams:
            try:
                await self._client.xgroup_create(stream, _GROUP, id="0", mkstream=True)
            except exceptions.ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def add(
        self,
        job_id: str,
        data: bytes,
        delay: float = 0.0,
        *,
        keep: float | None = None,
        request: str | None = None,
        priority: str = "normal",
        unique: str = "",
        last: str = "",
    ) -> Added:
        """
        Add a job once; a request that is known adds nothing.

        ``unique`` is a key that one job at a time may have, ``last`` the last job of a chain.
        """
        seen = f"{self._prefix}seen:{job_id if request is None else request}"
        kept = _SEEN if keep is None else round(keep * 1000)
        stream = self.streams[PRIORITIES.index(priority)]
        keys = (stream, self.delayed, seen, self.live, self.unique)
        arguments = (data, round(delay * 1000), kept, job_id, unique, last, priority)
        added, job = await self._run(_scripts.ADD, keys, *arguments)
        return Added(int(added) == 1, _text(job))

    async def fetch(self, count: int, block: float) -> list[Delivery]:
        """
        Fetch new messages by their priority, at most so many, and wait for the first for some seconds.

        After a wait there may be one of each stream, two more than asked for.
        """
        found = [
            Delivery(
                self.streams[int(number) - 1], _text(entry), _bytes(data), 1, _text(job), bool(cancelled)
            )
            for number, entry, data, job, cancelled in await self._run(
                _scripts.FETCH, (*self.streams, self.live), _GROUP, self.consumer, count
            )
        ]
        return found or await self._fetch_first(block)

    async def _fetch_first(self, block: float) -> list[Delivery]:
        streams = dict.fromkeys(self.streams, ">")
        got = await self._client.xreadgroup(
            _GROUP, self.consumer, streams, count=1, block=round(block * 1000)
        )

        if isinstance(got, dict):  # RESP3
            got = [(name, batches[0]) for name, batches in got.items()]

        found = [
            Delivery(_text(name), _text(message), _field(fields, "data"), 1, _field(fields, "job").decode())
            for name, entries in got or ()
            for message, fields in entries
        ]

        if not found:
            return found

        found.sort(key=lambda delivery: self.streams.index(delivery.stream))
        begun = await self._run(_scripts.BEGIN, (self.live,), *(delivery.job for delivery in found))
        return [
            replace(delivery, cancelled=bool(cancelled))
            for delivery, cancelled in zip(found, begun, strict=True)
        ]

    async def reclaim(self, count: int, most: int) -> list[Delivery]:
        """Take messages whose lease has ended; the last of ``most`` deliveries is left to `recount`."""
        all_found: list[Delivery] = []

        for stream in self.streams:
            if len(all_found) >= count:
                break

            left = count - len(all_found)
            arguments = (_GROUP, self.consumer, self._lease, self._cursors[stream], left, most)
            cursor, found = await self._run(_scripts.RECLAIM, (stream, self.live), *arguments)
            self._cursors[stream] = _text(cursor)
            all_found += [
                Delivery(stream, _text(message), _bytes(data), int(number), _text(job), bool(cancelled))
                for message, data, job, cancelled, number in found
            ]

        return all_found

    async def renew(self, deliveries: Iterable[Delivery]) -> tuple[set[tuple[str, str]], set[str]]:
        """Renew leases; return the messages that another worker has, and the jobs that were cancelled."""
        lost: set[tuple[str, str]] = set()
        cancelled: set[str] = set()

        for stream, batch in _batches(deliveries):
            arguments = (_GROUP, self.consumer, *_ids(batch))
            gone, stopped = await self._run(_scripts.RENEW, (stream, self.live), *arguments)
            lost.update((stream, _text(message)) for message in gone)
            cancelled.update(_text(job) for job in stopped)

        return lost, cancelled

    async def recount(self, delivery: Delivery, number: int) -> bool:
        """Set how often a message counts as delivered; return False when it is not this consumer's."""
        keys = (delivery.stream,)
        return int(await self._run(_scripts.RECOUNT, keys, _GROUP, self.consumer, delivery.id, number)) == 1

    async def done(self, deliveries: Iterable[Delivery]) -> None:
        """Acknowledge and delete messages; doing so again changes nothing."""
        for stream, batch in _batches(deliveries):
            await self._run(_scripts.DONE, (stream, self.live, self.unique), _GROUP, *_ids(batch))

    async def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """Move a message to the dead letters."""
        keys = (delivery.stream, self.dead, self.live, self.unique)
        arguments = (delivery.id, delivery.job, delivery.data, reason, delivery.number)
        await self._run(_scripts.DEAD_LETTER, keys, _GROUP, *arguments)

    async def hand_back(self, deliveries: Iterable[Delivery]) -> None:
        """Let other workers take messages at once, as if they had not been delivered here."""
        for stream, batch in _batches(deliveries):
            of_each = ((delivery.id, delivery.job, max(0, delivery.number - 1)) for delivery in batch)
            arguments = (_GROUP, self.consumer, _AT_ONCE, _RETURNED, *itertools.chain.from_iterable(of_each))
            await self._run(_scripts.HAND_BACK, (stream, self.live), *arguments)

    async def leave(self) -> None:
        """Hand back everything that is not acknowledged, and remove the consumer."""
        for stream in self.streams:
            try:
                await self._run(_scripts.LEAVE, (stream,), _GROUP, self.consumer, _AT_ONCE, _RETURNED)
            except exceptions.ResponseError as error:
                if "NOGROUP" not in str(error):  # it was never fetched from, or is deleted
                    raise

    async def move_due(self) -> float | None:
        """Add delayed jobs that are due; return the seconds until the next one, or None."""
        wait = int(await self._run(_scripts.MOVE_DUE, (self.delayed, self.live, *self.streams)))
        return None if wait < 0 else wait / 1000

    async def cancel(self, job_id: str) -> str:
        """Mark a job as cancelled and announce it; return the state it was in, empty when it had ended."""
        state = _text(await self._run(_scripts.CANCEL, (self.live, self.unique), job_id))

        if state:
            # Clusters of redis-py 7 have no method for it.
            await self._client.execute_command("PUBLISH", self.cancels, job_id)

        return state

    async def forget(self, job_id: str) -> None:
        """Forget the state of a job that will not be run, such as the last one of a chain that failed."""
        await self._client.hdel(self.live, job_id)

    async def state(self, job_id: str) -> str:
        """Return the state of a job, empty when it has ended."""
        found = await self._client.hget(self.live, job_id)
        return "" if found is None else _text(found).partition(" ")[0]

    async def note_outcomes(self, outcomes: dict[str, str]) -> None:
        """Write down how the last job of each task has ended."""
        await self._client.hset(self.outcomes, mapping=outcomes)

    async def read_outcomes(self) -> dict[str, str]:
        """Return how the last job of each task has ended."""
        found = await self._client.hgetall(self.outcomes)
        return {_text(task): _text(outcome) for task, outcome in found.items()}

    async def depth(self) -> dict[str, int]:
        """Count the messages of each priority, delayed jobs and dead letters."""
        found = {
            name: int(await self._client.xlen(stream))
            for name, stream in zip(PRIORITIES, self.streams, strict=True)
        }
        found["delayed"] = int(await self._client.zcard(self.delayed))
        found["dead"] = int(await self._client.xlen(self.dead))
        return found

    async def dead_letters(self, count: int) -> list[tuple[str, dict[str, bytes]]]:
        """Return ids and fields of the newest dead letters, the newest first."""
        found = await self._client.xrevrange(self.dead, count=count)
        return [
            (_text(id_), {_text(name): _bytes(value) for name, value in fields.items()})
            for id_, fields in found
        ]


async def persist(
    call: Callable[[], Awaitable[T]],
    what: str,
    *,
    level: int = logging.DEBUG,
    first: float = 0.1,
    most: float = 2.0,
) -> T:
    """Make a request until Redis answers; meanwhile ``what`` is logged to be so yet."""
    failures = 0

    while True:
        try:
            return await call()
        except TRANSIENT as error:
            failures += 1
            logger.log(level, "%s yet: %s", what, describe(error))
            await asyncio.sleep(delay(failures, first, most))


def _ids(deliveries: Iterable[Delivery]) -> Iterator[str]:
    return itertools.chain.from_iterable((delivery.id, delivery.job) for delivery in deliveries)


def _batches(deliveries: Iterable[Delivery]) -> list[tuple[str, list[Delivery]]]:
    """Group messages by their stream, some hundred at a time."""
    by_stream: dict[str, list[Delivery]] = {}

    for delivery in deliveries:
        by_stream.setdefault(delivery.stream, []).append(delivery)

    return [
        (stream, found[start : start + _BATCH])
        for stream, found in by_stream.items()
        for start in range(0, len(found), _BATCH)
    ]


def _field(fields: dict[Any, Any], name: str) -> bytes:  # Any: bytes or text, as the client decodes
    return _bytes(fields.get(name.encode(), fields.get(name, b"")))


def _text(value: Any) -> str:  # Any: bytes or text, as the client decodes
    return value.decode() if isinstance(value, bytes) else str(value)


def _bytes(value: Any) -> bytes:  # Any: bytes or text, as the client decodes
    return value.encode() if isinstance(value, str) else bytes(value)
