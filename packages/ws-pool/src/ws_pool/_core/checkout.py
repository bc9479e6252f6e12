"""The slow paths of acquire and release: wait for a connection; take one back that needs work.

The fast paths are in `ws_pool.pool`: an idle connection is taken, a clean one is put back. Neither
does I/O: that is left to `ws_pool._core.maintenance`.
"""

from __future__ import annotations

import asyncio
import inspect
from asyncio import get_running_loop
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from ws_pool._core.leak_detector import LeakDetector
from ws_pool._core.maintenance import Maintainer
from ws_pool._core.options import Lifecycle, PoolOptions
from ws_pool._core.pool_state import PoolEntry, PoolState, Waiter
from ws_pool._core.statistics import PoolMetrics
from ws_pool.errors import AcquireTimeout

T = TypeVar("T")

_OPEN = Lifecycle.OPEN


class Checkout(Generic[T]):
    """Hands connections out, and takes them back, whatever state the pool and they are in."""

    def __init__(
        self,
        options: PoolOptions[T],
        state: PoolState[T],
        maintainer: Maintainer[T],
        metrics: PoolMetrics[T],
        leak_detector: LeakDetector[T],
        *,
        observed: bool,
    ) -> None:
        self.observed: bool = observed
        self._is_alive = options.connector.is_alive
        self._is_clean = options.connector.is_clean
        self._is_lost = options.is_lost
        self._hooks = options.hooks
        self._name = options.name
        self._connect_timeout = options.connect_timeout
        self._max_waiting = options.max_waiting
        self._state = state
        self._maintainer = maintainer
        self._metrics = metrics
        self._leak_detector = leak_detector

    async def wait(
        self,
        task: asyncio.Task[object],
        now: float,
        timeout: float,
    ) -> PoolEntry[T]:
        """Wait for whichever connection comes first, and return it as leased."""
        state, maintainer = self._state, self._maintainer

        if maintainer.lifecycle is not _OPEN or get_running_loop() is not maintainer.loop:
            raise maintainer.unusable()

        # While the server is down, waiting makes sense only if some connection still exists.
        if maintainer.recovery.failure is not None and not state.serving:
            raise maintainer.recovery.unavailable()

        # Under overload, tasks that could not be served in time only make the others wait longer.
        # Those for which a connection is free, or may be opened, do not count.
        if self._max_waiting is not None:
            beyond = len(state.waiters) + len(state.leased) - state.max_size

            if beyond >= self._max_waiting:
                state.totals.timeouts += 1
                raise maintainer.too_many_waiting()

        waiter: Waiter[T] = Waiter(loop=maintainer.loop)
        waiter.since = now
        waiter.timeout = timeout
        state.waiters.append(waiter)

        if now + timeout < maintainer.deadlines.next_at:
            maintainer.deadlines.add(waiter)

        if len(state.leased) < state.max_size:
            maintainer.run_pending()

        try:
            entry = await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # The connection was handed over in the same turn of the loop in which this task was
                # cancelled: it is leased already, and must go back.
                self.take_back(waiter.result(), used=False)
            else:
                state.remove_waiter(waiter)

            raise

        waited = entry.taken_at - now
        waits = self._metrics.waits
        waits.counts[int(waited * 1e6).bit_length()] += 1  # HistogramBuilder.record, without the call
        waits.total += waited
        entry.holder = task

        if self.observed or entry.taken_at >= self._leak_detector.quiet_until:
            await self.observe_acquire(entry)

        return entry

    async def observe_acquire(self, entry: PoolEntry[T]) -> None:
        """Run what observes acquires: the leak detector, the warning of a nearly exhausted pool, the hook."""
        self._leak_detector.record_acquire(entry)
        pending = self._hooks.call(self._hooks.on_acquire, entry.conn)

        if pending is not None:
            await self._finish_acquire(entry, pending)

        if self._hooks.setup is not None:
            await self._set_up(entry, self._hooks.setup)

    async def _finish_acquire(self, entry: PoolEntry[T], pending: Awaitable[object]) -> None:
        """Await what the hook on_acquire has returned."""
        good = False

        try:
            good = await self._hooks.finish(pending, self._connect_timeout)
        finally:
            # Cut short by a cancellation or the timeout, it may have left half an exchange behind.
            if not good:
                self.take_back(entry, discard=True)

        if not good:
            message = f"pool {self._name!r}: the hook on_acquire took longer than {self._connect_timeout:g} s"
            raise AcquireTimeout(message, pool=self._name)

    async def _set_up(self, entry: PoolEntry[T], setup: Callable[[T], object]) -> None:
        """Prepare a connection for its holder; one that cannot be prepared is closed."""
        good = False

        try:
            async with asyncio.timeout(self._connect_timeout) as limit:
                pending = setup(entry.conn)

                if inspect.isawaitable(pending):
                    await pending

            good = True
        except TimeoutError as error:
            if not limit.expired():
                raise  # of setup itself, such as that of a statement

            message = f"pool {self._name!r}: setup took longer than {self._connect_timeout:g} s"
            raise AcquireTimeout(message, pool=self._name) from error
        finally:
            if not good:
                self.take_back(entry, discard=True)

    def take_back(self, entry: PoolEntry[T], *, discard: bool = False, used: bool = True) -> None:
        """Take a connection back and decide what becomes of it; ``used=False`` if its holder never had it."""
        state = self._state
        pending: Awaitable[object] | None = None

        if used and entry in state.leased:
            self._metrics.leases.record(self._maintainer.timers.now() - entry.taken_at)
            entry.holder = None

            if self.observed:
                entry.stack = None
                # Before the connection leaves `leased`: the hook may use the pool, which must not
                # count this connection as free meanwhile.
                pending = self._hooks.call(self._hooks.on_release, entry.conn)

        try:
            state.leased.remove(entry)
        except KeyError:  # the pool was closed meanwhile, and has terminated it
            if inspect.iscoroutine(pending):
                pending.close()

            return

        if pending is None:
            self._place(entry, discard=discard)
        else:
            self._maintainer.finish_release(entry, pending, lambda entry: self._place(entry, discard=discard))

    def _place(self, entry: PoolEntry[T], *, discard: bool) -> None:
        """Decide what becomes of a connection that was released."""
        state, maintainer = self._state, self._maintainer
        now = maintainer.timers.now()

        if discard or not self._is_alive(entry.conn):
            if self._is_lost is not None and self._is_lost(entry.conn):
                # The server has ended it: as a rule it has restarted, and the others are dead as well.
                maintainer.verify_all()

            maintainer.terminate(entry)
        elif maintainer.lifecycle is Lifecycle.CLOSED or state.unwanted(entry, now):
            maintainer.retire(entry)
        elif not self._is_clean(entry.conn):
            maintainer.reset(entry)
        elif now >= entry.trusted_until:
            maintainer.verify(entry)
        else:
            maintainer.hand_over(entry, now)
