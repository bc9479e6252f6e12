"""The state of a pool: which connection is where, and what to do next. No I/O, and no clock.

Every connection is in exactly one place: idle, leased, being opened, being verified (for a waiter,
or because it is suspected to be dead), being reset or being closed. The pool takes the next action
from its state, and does the I/O afterwards in tasks of its own. A task of a user that is cancelled can
therefore lose its place in the queue, but never a connection.

Invariants, which the tests assert after each step:

* ``size`` is the sum of the places, and never above ``max_size``;
* no task waits while a connection that needs no check is idle;
* a connection goes to the waiter that has waited longest, never to a newcomer before it.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from traceback import StackSummary
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True, eq=False, repr=False)
class PoolEntry(Generic[T]):
    """One connection with what the pool knows about it. Times are those of the pool's clock."""

    conn: T
    generation: int
    expires_at: float
    trusted_until: float = field(init=False)  # released before then, it is not verified
    check_at: float = field(init=False)  # acquired from then on, it is verified first
    checked_at: float = 0.0  # by a ping while it was idle
    idle_since: float = 0.0
    taken_at: float = 0.0
    holder: asyncio.Task[object] | str | None = None  # a name once the task has ended
    stack: StackSummary | None = None
    warned: bool = False

    def __post_init__(self) -> None:
        self.trusted_until = self.check_at = self.expires_at

    @property
    def holder_name(self) -> str:
        """The name of the task that holds the connection, for messages."""
        holder = self.holder
        return "?" if holder is None else holder if isinstance(holder, str) else holder.get_name()

    def holder_ended(self) -> bool:
        """Return whether the connection is held by a task that has ended; let go of that task."""
        holder = self.holder

        if holder is None or isinstance(holder, str):
            return holder is not None

        if not holder.done():
            return False

        self.holder = holder.get_name()  # not the task: its result or traceback may hold the client
        return True


class Waiter(asyncio.Future[PoolEntry[T]]):
    """A task's place in the queue, and the future of its connection. Times are in seconds."""

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
    """Counters since the start."""

    opened: int = 0
    closed: int = 0
    timeouts: int = 0
    failures: int = 0


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class PoolState(Generic[T]):
    """The places of all connections, and the queue of waiters."""

    min_size: int
    max_size: int
    max_connecting: int
    # Idle connections are a stack: the newest is reused first, and spare ones grow old and are closed.
    idle: list[PoolEntry[T]] = field(default_factory=list)
    leased: set[PoolEntry[T]] = field(default_factory=set)
    waiters: deque[Waiter[T]] = field(default_factory=deque)
    connecting: int = 0
    verifying: int = 0
    suspected: int = 0
    resetting: int = 0
    closing: int = 0
    generation: int = 0
    totals: Totals = field(default_factory=Totals)

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
        """Return what to do next and on which connection, counted as begun; None when there is nothing."""
        # There are three cases in which a waiter will be served without us: a connection is being
        # opened, verified or reset, and goes to the head of the queue when that is done. Only
        # waiters beyond these need something new. A released connection may serve them first; what
        # was begun for them then serves the next waiter, or becomes idle.
        unserved = len(self.waiters) - self.connecting - self.verifying - self.resetting

        if unserved > 0 and self.idle:
            # A waiter and an idle connection: the connection was not fresh enough for the fast path
            # of acquire. Verifying it is cheaper than opening one.
            entry = self.idle.pop()

            if self.unwanted(entry, now):
                self.closing += 1
                return NextAction.EVICT, entry

            self.verifying += 1
            return NextAction.VERIFY, entry

        # A closing connection counts in `size` until it is closed, so that the server never sees
        # more than max_size. `max_connecting` keeps a burst of waiters from a burst of handshakes.
        wanted = unserved > 0 or self.size < self.min_size

        if wanted and may_connect and self.connecting < self.max_connecting and self.size < self.max_size:
            self.connecting += 1
            return NextAction.CONNECT, None

        return None

    def outdated(self, entry: PoolEntry[T], now: float) -> bool:
        """Return whether a connection is past its lifetime, or was opened before the last `expire`."""
        return now >= entry.expires_at or entry.generation != self.generation

    def unwanted(self, entry: PoolEntry[T], now: float) -> bool:
        """Return whether a connection that is in no place at the moment is outdated, or one too many."""
        # It is one too many, after the maximum was lowered, when the others are as many as may be.
        return self.outdated(entry, now) or self.size >= self.max_size

    def pop_waiter(self) -> Waiter[T] | None:
        """Return the waiter that has waited longest, out of the queue; drop those that are done."""
        while self.waiters:
            waiter = self.waiters.popleft()

            if not waiter.done():
                return waiter

        return None

    def remove_waiter(self, waiter: Waiter[T]) -> None:
        """Take a waiter out of the queue; it may have left it already."""
        if waiter in self.waiters:
            self.waiters.remove(waiter)

    def expired_waiters(self, now: float) -> list[Waiter[T]]:
        """Return the waiters whose timeout is over, in order, out of the queue."""
        expired = [
            waiter for waiter in self.waiters if waiter.since + waiter.timeout <= now and not waiter.done()
        ]

        for waiter in expired:
            self.waiters.remove(waiter)

        return expired

    def put_idle(self, entry: PoolEntry[T], now: float, ping_after: float) -> None:
        """Add a connection that is known to be alive to the idle ones."""
        entry.idle_since = now
        entry.check_at = now + ping_after
        self.idle.append(entry)

    def take_suspects(self) -> list[PoolEntry[T]]:
        """
        Return all idle connections, counted as suspected: one of them was found dead.

        No waiter depends on a suspect: `next_action` opens new connections meanwhile, and a suspect
        that answers first is used. Verified one after the other, each silent connection would cost
        the waiter a ping timeout.
        """
        entries, self.idle[:] = list(self.idle), ()
        self.suspected += len(entries)
        return entries

    def take_silent(self, now: float, keepalive: float) -> list[PoolEntry[T]]:
        """Return the idle connections that were last known to be alive too long ago, counted as suspected."""
        silent = [entry for entry in self.idle if now - max(entry.idle_since, entry.checked_at) >= keepalive]

        for entry in silent:
            self.idle.remove(entry)

        self.suspected += len(silent)
        return silent

    def keep_idle(self, entry: PoolEntry[T], now: float, ping_after: float) -> None:
        """Put a connection back among the idle ones that was only pinged: it is as old as it was."""
        entry.checked_at = now
        entry.check_at = now + ping_after
        insort(self.idle, entry, key=lambda entry: entry.idle_since)

    def mark_untrusted(self) -> None:
        """Have all leased connections verified at their release, because one of them was lost."""
        for entry in self.leased:
            entry.trusted_until = float("-inf")

    def evictable(self, now: float, max_idle: float) -> list[PoolEntry[T]]:
        """Return idle connections that are outdated, or spare and idle for too long, counted as closing."""
        spare = self.size - self.min_size
        keep: list[PoolEntry[T]] = []
        evicted: list[PoolEntry[T]] = []

        for entry in self.idle:  # the oldest first, since the newest are reused first
            if self.outdated(entry, now):
                evicted.append(entry)
            elif spare > 0 and now - entry.idle_since >= max_idle:
                spare -= 1
                evicted.append(entry)
            else:
                keep.append(entry)

        self.idle[:] = keep
        self.closing += len(evicted)
        return evicted
