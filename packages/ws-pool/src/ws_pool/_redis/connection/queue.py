"""Commands that wait in front of a link: first come first served, bounded, each with a deadline. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from ws_pool._redis.connection.replies import PendingReply

__all__ = (
    "HEAVY",
    "CommandQueue",
    "Limits",
    "QueuePressure",
    "QueuedCommand",
)


@dataclass(slots=True)
class QueuedCommand:
    """
    Commands that are to be written as one piece.

    Args:
        slot: Gets the replies, or the error; one that is done is waited for no more.
        data: Bytes of the commands.
        count: How many there are.
        raw: Whether the reply must stay bytes.
        since: When they came.
        deadline: When they must have been sent.
    """

    slot: PendingReply
    data: bytes
    count: int
    raw: bool
    since: float
    deadline: float


class CommandQueue:
    """
    A bounded queue.

    Deadlines never decrease from the head to the tail, because all who wait have the same patience.

    Args:
        max_commands: It is full at so many pieces.
        max_bytes: It is full at so many bytes, too.

    Example:
        >>> from unittest.mock import Mock
        >>> slot = Mock(done=lambda: False)
        >>> queue = CommandQueue(2, 100)
        >>> for deadline in (1.0, 2.0):
        ...     queue.append(QueuedCommand(slot, b"PING", 1, raw=False, since=0.0, deadline=deadline))
        >>> queue.full, [late.deadline for late in queue.expire(1.5)], queue.full, queue.next_deadline
        (True, [1.0], False, 2.0)
    """

    def __init__(self, max_commands: int, max_bytes: int) -> None:
        self._max_commands = max_commands
        self._max_bytes = max_bytes
        self._waiting: deque[QueuedCommand] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def bytes(self) -> int:
        """Bytes of all that wait."""
        return self._bytes

    @property
    def full(self) -> bool:
        """Whether there is no room for another piece."""
        return len(self._waiting) >= self._max_commands or self._bytes >= self._max_bytes

    @property
    def next_deadline(self) -> float | None:
        """The deadline of the head; None when nobody waits."""
        return self._waiting[0].deadline if self._waiting else None

    def append(self, waiting: QueuedCommand) -> None:
        """Let a piece wait, behind all others."""
        self._waiting.append(waiting)
        self._bytes += len(waiting.data)

    def head(self) -> QueuedCommand | None:
        """Give the first who still waits; forget those before."""
        while self._waiting:
            if not self._waiting[0].slot.done():
                return self._waiting[0]

            self.popleft()

        return None

    def popleft(self) -> QueuedCommand:
        """Take the first out."""
        waiting = self._waiting.popleft()
        self._bytes -= len(waiting.data)
        return waiting

    def expire(self, now: float) -> list[QueuedCommand]:
        """Take those out whose deadline has come, and give those of them who still wait."""
        late: list[QueuedCommand] = []

        while (waiting := self.head()) is not None and waiting.deadline <= now:
            late.append(self.popleft())

        return late

    def drain(self) -> list[QueuedCommand]:
        """Take all out, and give those who still wait."""
        return self.expire(float("inf"))

    def hasten(self, deadline: float) -> None:
        """Let nobody wait longer than to a deadline."""
        for waiting in self._waiting:
            waiting.deadline = min(waiting.deadline, deadline)

    def postpone(self, deadline: float) -> None:
        """Let all wait to a deadline, which is later than those of all."""
        for waiting in self._waiting:
            waiting.deadline = deadline

    def sweep(self) -> None:
        """Forget those who wait no more, wherever they stand."""
        self._waiting = deque(waiting for waiting in self._waiting if not waiting.slot.done())
        self._bytes = sum(len(waiting.data) for waiting in self._waiting)


_EVERY: Final = 60.0  # seconds between two warnings


class QueuePressure:
    """
    Decides when to warn of a queue that fills up.

    Args:
        most: How many the queue holds.

    Example:
        >>> low = QueuePressure(9)
        >>> [low.due(queued, now=0.0) for queued in (5, 6, 7)]
        [False, True, False]
        >>> low.due(8, now=60.0)
        True
    """

    def __init__(self, most: int) -> None:
        self._threshold = max(1, most - most // 3)
        self._next = float("-inf")

    def due(self, queued: int, *, now: float) -> bool:
        """
        Tell whether to warn; a yes counts as a warning.

        Args:
            queued: How many wait.
            now: The loop's time in seconds.

        Returns:
            Whether two thirds are taken and no warning was due in the last minute.
        """
        if queued < self._threshold or now < self._next:
            return False

        self._next = now + _EVERY
        return True


HEAVY: Final = 1024
"""Commands above this many bytes are counted by their size too, lighter ones only by their number."""


@dataclass(frozen=True, slots=True)
class Limits:
    """
    Bounds of a lane. Durations are seconds.

    Args:
        max_pending: Most commands in line on a link.
        max_bytes: Most bytes of heavy commands in line on a link, and again in the queue.
        max_queue: Most commands in the queue in front of a link; it is full by bytes too, at max_bytes.
        command_timeout: Without a reply for so long while one is due, the link is killed.
        connect_timeout: For one connect with its greeting.
        queue_timeout: How long a command waits for room on a full link.
        outage_timeout: How long an outage may last before commands fail instead of waiting.
        backoff: Shortest and longest pause between two attempts to connect.
    """

    max_pending: int = 10_000
    max_bytes: int = 64 * 1024 * 1024
    max_queue: int = 10_000
    command_timeout: float = 5.0
    connect_timeout: float = 5.0
    queue_timeout: float = 30.0
    outage_timeout: float = 2.0
    backoff: tuple[float, float] = (0.02, 1.0)
