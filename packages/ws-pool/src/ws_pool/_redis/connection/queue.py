"""Commands that wait in front of a shared connection: first in, first out, bounded, with deadlines. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from ws_pool._redis.connection.replies import PendingReply

HEAVY: Final = 1024
"""Commands above this many bytes count by their size too, lighter ones only by their number."""

_WARN_EVERY: Final = 60.0  # seconds between two warnings


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a shared connection. Durations are seconds."""

    max_pending: int = 10_000  # most commands without a reply
    max_bytes: int = 64 * 1024 * 1024  # most bytes of heavy commands without a reply, and again in the queue
    max_queue: int = 10_000  # most commands in the queue in front of the connection
    command_timeout: float = 5.0  # silence while a reply is pending, after which the connection is closed
    connect_timeout: float = 5.0  # one connect with its handshake
    queue_timeout: float = 30.0  # how long a command waits for room on a full connection
    outage_timeout: float = 2.0  # how long an outage may last before commands fail instead of waiting
    backoff: tuple[float, float] = (0.02, 1.0)  # shortest and longest pause between two connects


@dataclass(slots=True)
class QueuedCommand:
    """Commands that are written as one piece."""

    reply: PendingReply  # gets the replies, or the error; when it is done, its caller was cancelled
    data: bytes
    count: int  # commands in data
    raw: bool  # whether the reply, of several the last one, must stay bytes
    since: float  # when it was queued
    deadline: float  # when it must have been sent


class CommandQueue:
    """
    A bounded queue.

    Deadlines never decrease from the head to the tail, because all entries wait equally long.

    Example:
        >>> from unittest.mock import Mock
        >>> reply = Mock(done=lambda: False)
        >>> queue = CommandQueue(2, 100)
        >>> for deadline in (1.0, 2.0):
        ...     queue.append(QueuedCommand(reply, b"PING", 1, raw=False, since=0.0, deadline=deadline))
        >>> queue.full, [late.deadline for late in queue.expire(1.5)], queue.full, queue.next_deadline
        (True, [1.0], False, 2.0)
    """

    def __init__(self, max_commands: int, max_bytes: int) -> None:
        self._max_commands = max_commands
        self._max_bytes = max_bytes
        self._entries: deque[QueuedCommand] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """Bytes of all entries."""
        return self._bytes

    @property
    def full(self) -> bool:
        """Whether there is no room for another entry."""
        return len(self._entries) >= self._max_commands or self._bytes >= self._max_bytes

    @property
    def next_deadline(self) -> float | None:
        """The deadline of the head; None when the queue is empty."""
        return self._entries[0].deadline if self._entries else None

    def append(self, queued: QueuedCommand) -> None:
        """Add an entry at the tail."""
        self._entries.append(queued)
        self._bytes += len(queued.data)

    def head(self) -> QueuedCommand | None:
        """Return the first entry that was not cancelled; those before it are removed."""
        while self._entries:
            if not self._entries[0].reply.done():
                return self._entries[0]

            self.popleft()

        return None

    def popleft(self) -> QueuedCommand:
        """Remove the head."""
        queued = self._entries.popleft()
        self._bytes -= len(queued.data)
        return queued

    def expire(self, now: float) -> list[QueuedCommand]:
        """Remove the entries whose deadline has come; return those that were not cancelled."""
        late: list[QueuedCommand] = []

        while (queued := self.head()) is not None and queued.deadline <= now:
            late.append(self.popleft())

        return late

    def drain(self) -> list[QueuedCommand]:
        """Remove all entries; return those that were not cancelled."""
        return self.expire(float("inf"))

    def shorten_deadlines(self, deadline: float) -> None:
        """Move later deadlines forward to this one."""
        for queued in self._entries:
            queued.deadline = min(queued.deadline, deadline)

    def extend_deadlines(self, deadline: float) -> None:
        """Move all deadlines back to this one, which is later than all of them."""
        for queued in self._entries:
            queued.deadline = deadline

    def remove_cancelled(self) -> None:
        """Remove the entries whose caller was cancelled, wherever they are."""
        self._entries = deque(queued for queued in self._entries if not queued.reply.done())
        self._bytes = sum(len(queued.data) for queued in self._entries)


class QueuePressure:
    """
    Decides when to warn that a queue is nearly full.

    Example:
        >>> pressure = QueuePressure(9)
        >>> [pressure.due(queued, now=0.0) for queued in (5, 6, 7)]
        [False, True, False]
        >>> pressure.due(8, now=60.0)
        True
    """

    def __init__(self, max_queue: int) -> None:
        self._threshold = max(1, max_queue - max_queue // 3)
        self._next = float("-inf")

    def due(self, queued: int, *, now: float) -> bool:
        """Return whether to warn: two thirds are taken, and no warning was due in the last minute."""
        if queued < self._threshold or now < self._next:
            return False

        self._next = now + _WARN_EVERY
        return True
