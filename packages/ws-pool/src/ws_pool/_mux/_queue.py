"""Commands that wait in front of a link: first come first served, bounded, each with a deadline. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from ws_pool._mux._slot import Slot

__all__ = ("CommandQueue", "Waiting")


@dataclass(slots=True)
class Waiting:
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

    slot: Slot
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
        ...     queue.append(Waiting(slot, b"PING", 1, raw=False, since=0.0, deadline=deadline))
        >>> queue.full, [late.deadline for late in queue.expire(1.5)], queue.full, queue.next_deadline
        (True, [1.0], False, 2.0)
    """

    def __init__(self, max_commands: int, max_bytes: int) -> None:
        self._max_commands = max_commands
        self._max_bytes = max_bytes
        self._waiting: deque[Waiting] = deque()
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

    def append(self, waiting: Waiting) -> None:
        """Let a piece wait, behind all others."""
        self._waiting.append(waiting)
        self._bytes += len(waiting.data)

    def head(self) -> Waiting | None:
        """Give the first who still waits; forget those before."""
        while self._waiting:
            if not self._waiting[0].slot.done():
                return self._waiting[0]

            self.popleft()

        return None

    def popleft(self) -> Waiting:
        """Take the first out."""
        waiting = self._waiting.popleft()
        self._bytes -= len(waiting.data)
        return waiting

    def expire(self, now: float) -> list[Waiting]:
        """Take those out whose deadline has come, and give those of them who still wait."""
        late: list[Waiting] = []

        while (waiting := self.head()) is not None and waiting.deadline <= now:
            late.append(self.popleft())

        return late

    def drain(self) -> list[Waiting]:
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
