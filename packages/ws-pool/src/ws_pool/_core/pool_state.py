"""Who has which connection: the pool's books, kept without any I/O and without a clock of its own.

Every connection is in exactly one place: idle, leased, being opened, being verified (for a waiter,
or because it is in doubt), being reset or being closed. The pool asks the state what to do next
and does the I/O afterwards, in tasks of its own; a task that is cancelled can therefore lose no
connection, only its place in the queue.

What always holds, and what the tests assert after each step:

* ``size`` is the sum of the places and never above ``max_size``;
* nobody waits while a connection that needs no check is idle;
* a connection is given to the waiter who waits longest, never to a newcomer before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from traceback import StackSummary
from typing import Generic, TypeVar

__all__ = ("NextAction", "PoolEntry", "PoolState", "Waiter")

T = TypeVar("T")


class PoolEntry(Generic[T]):
    """One connection with what the pool knows about it. Times are those of the pool's clock."""

    __slots__ = (
        "check_at",
        "conn",
        "expires_at",
        "generation",
        "holder",
        "idle_since",
        "stack",
        "taken_at",
        "trusted_until",
        "warned",
    )

    def __init__(self, conn: T, generation: int, expires_at: float) -> None:
        self.conn: T = conn
        self.generation: int = generation
        self.expires_at: float = expires_at
        self.trusted_until: float = expires_at  # when given back before then, it needs no look
        self.check_at: float = expires_at
        self.idle_since: float = 0.0
        self.taken_at: float = 0.0
        self.holder: asyncio.Task[object] | None = None
        self.stack: StackSummary | None = None
        self.warned: bool = False


class Waiter(asyncio.Future[PoolEntry[T]]):
    """A task's place in the queue, and the future that brings the entry. Times are in seconds."""

    __slots__ = ("since", "timeout")

    since: float
    timeout: float


class NextAction(Enum):
    """What the pool should do next."""

    VERIFY = auto()
    EVICT = auto()
    CONNECT = auto()


@dataclass(slots=True)
class Totals:
    """What has happened so far."""

    opened: int = 0
    closed: int = 0
    timeouts: int = 0
    failures: int = 0


class PoolState(Generic[T]):
    """
    The books of one pool.

    Args:
        min_size: Connections to keep open.
        max_size: Most connections at once.
        max_connecting: Most connections to open at once.
    """

    __slots__ = (
        "closing",
        "connecting",
        "generation",
        "idle",
        "leased",
        "max_connecting",
        "max_size",
        "min_size",
        "resetting",
        "suspected",
        "totals",
        "verifying",
        "waiters",
    )

    def __init__(self, *, min_size: int, max_size: int, max_connecting: int) -> None:
        self.min_size = min_size
        self.max_size = max_size
        self.max_connecting = max_connecting
        self.idle: list[PoolEntry[T]] = []
        self.leased: set[PoolEntry[T]] = set()
        self.waiters: deque[Waiter[T]] = deque()
        self.connecting = 0
        self.verifying = 0
        self.suspected = 0
        self.resetting = 0
        self.closing = 0
        self.generation = 0
        self.totals = Totals()

    @property
    def size(self) -> int:
        """Connections that exist in any state, or are being opened."""
        return (
            len(self.idle)
            + len(self.leased)
            + self.connecting
            + self.verifying
            + self.suspected
            + self.resetting
            + self.closing
        )

    @property
    def serving(self) -> int:
        """Connections that may still come to a waiter without a new one being opened."""
        return len(self.idle) + len(self.leased) + self.verifying + self.suspected + self.resetting

    def next_action(self, now: float, *, may_connect: bool) -> tuple[NextAction, PoolEntry[T] | None] | None:
        """
        Decide what to do next, and book it as begun.

        Three things can bring a waiter its connection: one that comes back (and may be reset
        first), an idle one that is verified first, and a new one. As many of them are under way
        as there are waiters; a connection that comes back makes those not yet begun spare.

        Args:
            now: The time.
            may_connect: Whether connects are allowed, which they are not while the server is down.

        Returns:
            A job and its entry, or None when nothing is to be done.
        """
        unserved = len(self.waiters) - self.connecting - self.verifying - self.resetting

        if unserved > 0 and self.idle:
            entry = self.idle.pop()

            if self.outdated(entry, now):
                self.closing += 1
                return NextAction.EVICT, entry

            self.verifying += 1
            return NextAction.VERIFY, entry

        wanted = unserved > 0 or self.size < self.min_size

        if wanted and may_connect and self.connecting < self.max_connecting and self.size < self.max_size:
            self.connecting += 1
            return NextAction.CONNECT, None

        return None

    def outdated(self, entry: PoolEntry[T], now: float) -> bool:
        """
        Tell whether a connection must not be used any more, however alive it is.

        Args:
            entry: The connection.
            now: The time.

        Returns:
            True when it is past its lifetime or from before the last `expire`.
        """
        return now >= entry.expires_at or entry.generation != self.generation

    def pop_waiter(self) -> Waiter[T] | None:
        """Take the waiter who waits longest out of the queue; those who gave up are dropped."""
        while self.waiters:
            waiter = self.waiters.popleft()

            if not waiter.done():
                return waiter

        return None

    def remove_waiter(self, waiter: Waiter[T]) -> None:
        """
        Take a waiter who gave up out of the queue, wherever it is.

        Args:
            waiter: It may have left the queue already.
        """
        if waiter in self.waiters:
            self.waiters.remove(waiter)

    def expired_waiters(self, now: float) -> list[Waiter[T]]:
        """
        Take those out of the queue whose time is over.

        Args:
            now: The time.

        Returns:
            Them, in their order.
        """
        late = [
            waiter for waiter in self.waiters if waiter.since + waiter.timeout <= now and not waiter.done()
        ]

        for waiter in late:
            self.waiters.remove(waiter)

        return late

    def put_idle(self, entry: PoolEntry[T], now: float, ping_after: float) -> None:
        """
        Put a connection to the idle ones; it was in order just now.

        Args:
            entry: The connection.
            now: The time.
            ping_after: Seconds after which it must be verified before use.
        """
        entry.idle_since = now
        entry.check_at = now + ping_after
        self.idle.append(entry)

    def take_suspects(self) -> list[PoolEntry[T]]:
        """
        Take all idle connections out, because one of them was found dead.

        Nobody counts on those in doubt: a waiter gets a new connection, or one of them if that is
        verified first. One after the other, each silent one would cost it the time of a ping.

        Returns:
            The connections to verify, booked as suspected.
        """
        entries, self.idle[:] = list(self.idle), ()
        self.suspected += len(entries)
        return entries

    def mark_untrusted(self) -> None:
        """Have all leased connections verified when they come back, because one of them was lost."""
        for entry in self.leased:
            entry.trusted_until = float("-inf")

    def evictable(self, now: float, max_idle: float) -> list[PoolEntry[T]]:
        """
        Take out the idle connections that are outdated, or idle for too long and spare.

        Args:
            now: The time.
            max_idle: Seconds.

        Returns:
            The connections to close, booked as closing.
        """
        spare = self.size - self.min_size
        keep: list[PoolEntry[T]] = []
        leave: list[PoolEntry[T]] = []

        for entry in self.idle:  # the oldest first, since the newest are reused first
            if self.outdated(entry, now):
                leave.append(entry)
            elif spare > 0 and now - entry.idle_since >= max_idle:
                spare -= 1
                leave.append(entry)
            else:
                keep.append(entry)

        self.idle[:] = keep
        self.closing += len(leave)
        return leave
