"""The longer ways of lending: to wait for a connection, and to take one back that is not simply in order.

The short ways, an idle connection taken and a sound one given back, are in `ws_pool.pool`. There is
no I/O in either: what has to be done to a connection is left to `ws_pool._core.maintenance`.
"""

from __future__ import annotations

import asyncio
from asyncio import get_running_loop
from collections.abc import Callable
from typing import Generic, TypeVar

from ws_pool._core.connector import Connector
from ws_pool._core.leak_detector import LeakDetector
from ws_pool._core.maintenance import Maintainer
from ws_pool._core.options import Lifecycle, PoolHooks
from ws_pool._core.pool_state import PoolEntry, PoolState, Waiter
from ws_pool._core.statistics import PoolMetrics

__all__ = ("Checkout",)

T = TypeVar("T")

_OPEN = Lifecycle.OPEN


class Checkout(Generic[T]):
    """
    Books connections out and in.

    Args:
        connector: Judges the connections.
        state: The books.
        maintainer: Does what has to be done.
        metrics: Counts the times.
        leak_detector: Warns.
        hooks: What to call.
        is_lost: Tells whether a connection was ended by its server.
    """

    __slots__ = (
        "_hooks",
        "_is_alive",
        "_is_clean",
        "_is_lost",
        "_leak_detector",
        "_maintainer",
        "_metrics",
        "_state",
        "observed",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of one machine
        self,
        connector: Connector[T],
        state: PoolState[T],
        maintainer: Maintainer[T],
        metrics: PoolMetrics[T],
        leak_detector: LeakDetector[T],
        hooks: PoolHooks[T],
        is_lost: Callable[[T], bool] | None,
        *,
        observed: bool,
    ) -> None:
        self.observed: bool = observed
        self._is_alive = connector.is_alive
        self._is_clean = connector.is_clean
        self._is_lost = is_lost
        self._state = state
        self._maintainer = maintainer
        self._metrics = metrics
        self._leak_detector = leak_detector
        self._hooks = hooks

    async def wait(
        self,
        task: asyncio.Task[object],
        now: float,
        timeout: float,  # noqa: ASYNC109 - a queue's own limit
    ) -> PoolEntry[T]:
        """
        Wait for whichever connection comes first.

        Args:
            task: Who will hold it.
            now: The time.
            timeout: Seconds.

        Returns:
            The connection, booked as leased.

        Raises:
            AcquireTimeout: None was free in time.
            UnavailableError: The server is down.
            UsageError: The pool cannot be used here and now.
        """
        state, maintainer = self._state, self._maintainer

        if maintainer.lifecycle is not _OPEN or get_running_loop() is not maintainer.loop:
            raise maintainer.unusable()

        if maintainer.recovery.failure is not None and not state.serving:
            raise maintainer.recovery.unavailable()

        waiter: Waiter[T] = Waiter(loop=maintainer.loop)
        waiter.since = now
        waiter.timeout = timeout
        state.waiters.append(waiter)

        if now + timeout < maintainer.deadlines.at:
            maintainer.deadlines.expect(waiter)

        if len(state.leased) < state.max_size:
            maintainer.run_pending()

        try:
            entry = await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.take_back(waiter.result(), used=False)  # the hand-over and the cancellation crossed
            else:
                state.remove_waiter(waiter)

            raise

        waited = entry.taken_at - now
        waits = self._metrics.waits
        waits.counts[int(waited * 1e6).bit_length()] += 1
        waits.total += waited
        entry.holder = task

        if self.observed or entry.taken_at >= self._leak_detector.quiet_until:
            self.record_acquire(entry)

        return entry

    def record_acquire(self, entry: PoolEntry[T]) -> None:
        """
        Do what is asked for at an acquire, or due because the pool runs low.

        Args:
            entry: The connection.
        """
        self._leak_detector.record_acquire(entry)
        self._hooks.call(self._hooks.on_acquire, entry.conn)

    def take_back(self, entry: PoolEntry[T], discard: bool = False, used: bool = True) -> None:  # noqa: FBT001, FBT002 - hot
        """
        Book a connection back from its holder, and decide what becomes of it.

        Args:
            entry: The connection.
            discard: Close it.
            used: Whether its holder ever had it.
        """
        state, maintainer = self._state, self._maintainer
        now = maintainer.timers.now()

        if used and entry in state.leased:
            self._metrics.leases.record(now - entry.taken_at)
            entry.holder = None

            if self.observed:
                entry.stack = None
                self._hooks.call(
                    self._hooks.on_release, entry.conn
                )  # while it is in the books: it may use the pool

        try:
            state.leased.remove(entry)
        except KeyError:
            return  # the pool was closed meanwhile, and has terminated it

        if discard or not self._is_alive(entry.conn):
            if self._is_lost is not None and self._is_lost(entry.conn):
                maintainer.verify_all()

            maintainer.terminate(entry)
        elif state.outdated(entry, now):
            maintainer.retire(entry)
        elif not self._is_clean(entry.conn):
            maintainer.reset(entry)
        elif now >= entry.trusted_until:
            maintainer.verify(entry)
        else:
            maintainer.hand_over(entry, now)
