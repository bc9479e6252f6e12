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
        ledger: The books.
        upkeep: Does what has to be done.
        tally: Counts the times.
        watch: Warns.
        hooks: What to call.
        is_lost: Tells whether a connection was ended by its server.
    """

    __slots__ = (
        "_hooks",
        "_is_alive",
        "_is_clean",
        "_is_lost",
        "_ledger",
        "_tally",
        "_upkeep",
        "_watch",
        "watched",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of one machine
        self,
        connector: Connector[T],
        ledger: PoolState[T],
        upkeep: Maintainer[T],
        tally: PoolMetrics[T],
        watch: LeakDetector[T],
        hooks: PoolHooks[T],
        is_lost: Callable[[T], bool] | None,
        *,
        watched: bool,
    ) -> None:
        self.watched: bool = watched
        self._is_alive = connector.is_alive
        self._is_clean = connector.is_clean
        self._is_lost = is_lost
        self._ledger = ledger
        self._upkeep = upkeep
        self._tally = tally
        self._watch = watch
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
        ledger, upkeep = self._ledger, self._upkeep

        if upkeep.state is not _OPEN or get_running_loop() is not upkeep.loop:
            raise upkeep.refusal()

        if upkeep.recovery.failure is not None and not ledger.serving:
            raise upkeep.recovery.unavailable()

        waiter: Waiter[T] = Waiter(loop=upkeep.loop)
        waiter.since = now
        waiter.timeout = timeout
        ledger.waiters.append(waiter)

        if now + timeout < upkeep.alarm.at:
            upkeep.alarm.expect(waiter)

        if len(ledger.leased) < ledger.max_size:
            upkeep.pump()

        try:
            slot = await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.take_back(waiter.result(), used=False)  # the hand-over and the cancellation crossed
            else:
                ledger.forget(waiter)

            raise

        waited = slot.taken_at - now
        waits = self._tally.waits
        waits.counts[int(waited * 1e6).bit_length()] += 1
        waits.total += waited
        slot.holder = task

        if self.watched or slot.taken_at >= self._watch.quiet_until:
            self.look_at(slot)

        return slot

    def look_at(self, slot: PoolEntry[T]) -> None:
        """
        Do what is asked for at an acquire, or due because the pool runs low.

        Args:
            slot: The connection.
        """
        self._watch.acquired(slot)
        self._hooks.call(self._hooks.on_acquire, slot.conn)

    def take_back(self, slot: PoolEntry[T], discard: bool = False, used: bool = True) -> None:  # noqa: FBT001, FBT002 - hot
        """
        Book a connection back from its holder, and decide what becomes of it.

        Args:
            slot: The connection.
            discard: Close it.
            used: Whether its holder ever had it.
        """
        ledger, upkeep = self._ledger, self._upkeep
        now = upkeep.timers.now()

        if used and slot in ledger.leased:
            self._tally.leases.record(now - slot.taken_at)
            slot.holder = None

            if self.watched:
                slot.stack = None
                self._hooks.call(
                    self._hooks.on_release, slot.conn
                )  # while it is in the books: it may use the pool

        try:
            ledger.leased.remove(slot)
        except KeyError:
            return  # the pool was closed meanwhile, and has terminated it

        if discard or not self._is_alive(slot.conn):
            if self._is_lost is not None and self._is_lost(slot.conn):
                upkeep.distrust()

            upkeep.terminate(slot)
        elif ledger.outdated(slot, now):
            upkeep.retire(slot)
        elif not self._is_clean(slot.conn):
            upkeep.cleanse(slot)
        elif now >= slot.trusted_until:
            upkeep.verify(slot)
        else:
            upkeep.offer(slot, now)
