"""The I/O of a pool: it opens, verifies, resets and closes connections in tasks of its own.

The ledger decides, `Maintainer` does. No task of a user ever runs in here, so that no user's
cancellation can interrupt any of it. The other half of the pool, `ws_pool.pool`, lends and takes
back, and does no I/O at all.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from ws_pool._core.background import BackgroundTasks, Timers
from ws_pool._core.connector import Connector
from ws_pool._core.deadlines import AcquireDeadlines
from ws_pool._core.leak_detector import LeakDetector
from ws_pool._core.options import Lifecycle, PoolHooks, PoolOptions
from ws_pool._core.pool_state import NextAction, PoolEntry, PoolState, Waiter
from ws_pool._core.recovery import Recovery, refusal, say, too_late
from ws_pool._core.statistics import HistogramBuilder
from ws_pool.errors import UsageError

__all__ = ("Maintainer",)

logger = logging.getLogger("ws_pool")

T = TypeVar("T")

_TICK = 1.0  # seconds between looks at idle and leased connections


class Maintainer(Generic[T]):
    """
    Keeps a pool's connections.

    Args:
        name: The pool's name.
        connector: Opens and closes connections.
        ledger: The books.
        options: The durations.
        hooks: What to call.
        watch: Knows who holds connections.
        creates: Counts how long connects take.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of one machine
        self,
        name: str,
        connector: Connector[T],
        ledger: PoolState[T],
        options: PoolOptions,
        hooks: PoolHooks[T],
        watch: LeakDetector[T],
        creates: HistogramBuilder,
    ) -> None:
        self.name = name
        self.state = Lifecycle.NEW
        self.forked = False
        self.timers = Timers()
        self.alarm: AcquireDeadlines[T] = AcquireDeadlines(ledger, self.timers, self._too_late)
        self.recovery: Recovery[T] = Recovery(
            name,
            connector,
            ledger,
            self.timers,
            options,
            lambda timeout: self._crew.spawn(self._open(timeout)),
        )
        self._connector = connector
        self._ledger = ledger
        self._options = options
        self._hooks = hooks
        self._watch = watch
        self._creates = creates
        self._crew: BackgroundTasks[T] = BackgroundTasks(self.timers, self.terminate)
        self._drained: asyncio.Future[None] | None = None

    def start(self, clock: Callable[[], float] | None) -> None:
        """
        Begin to keep connections, in the running loop.

        Args:
            clock: Gives the time; `time.monotonic` by default.
        """
        self.timers.start(clock)
        self.state = Lifecycle.OPEN
        self.timers.set("tick", _TICK, self._tick)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that the pool was started in."""
        return self.timers.loop

    def usable_here(self) -> bool:
        """Tell whether the pool is open, in its own loop and its own process."""
        return self.state is Lifecycle.OPEN and not self.forked and asyncio.get_running_loop() is self.loop

    def refusal(self) -> UsageError:
        """Say why the pool cannot be used here and now."""
        return refusal(self.name, self.state, forked=self.forked)

    def pump(self) -> None:
        """Begin whatever the ledger finds to be done."""
        ledger = self._ledger

        if self.state is not Lifecycle.OPEN:
            if self._drained is not None and not self._drained.done() and not ledger.size:
                self._drained.set_result(None)

            return

        now = self.timers.now()

        while work := ledger.next_job(now, may_connect=self.recovery.failure is None):
            job, slot = work

            if job is NextAction.CONNECT:
                self._crew.spawn(self._open(self._options.connect_timeout))
            elif job is NextAction.VERIFY:
                self._crew.spawn(self._verify(cast("PoolEntry[T]", slot)), slot)
            else:
                self._crew.spawn(self._close(cast("PoolEntry[T]", slot)), slot)

        if self.recovery.failure is not None and ledger.waiters and not ledger.serving:
            while waiter := ledger.head():
                waiter.set_exception(self.recovery.unavailable())

    def offer(self, slot: PoolEntry[T], now: float) -> None:
        """
        Hand a connection that is in order to the head of the queue, or let it rest.

        Args:
            slot: The connection; it has no place in the books at the moment.
            now: The time.
        """
        ledger = self._ledger
        waiter = ledger.head()

        if waiter is None:
            ledger.rest(slot, now, self._options.ping_after)
            return

        ledger.leased.add(slot)
        slot.taken_at = now
        slot.holder = None
        waiter.set_result(slot)

    def retire(self, slot: PoolEntry[T]) -> None:
        """
        Close a connection gracefully, in the background.

        Args:
            slot: The connection; it has no place in the books at the moment.
        """
        if self.state is Lifecycle.CLOSED:
            self.terminate(slot)
            return

        self._ledger.closing += 1
        self._crew.spawn(self._close(slot), slot)

    def cleanse(self, slot: PoolEntry[T]) -> None:
        """
        Reset a connection's session in the background, then put it where it is needed.

        Args:
            slot: The connection; it has no place in the books at the moment.
        """
        self._ledger.resetting += 1
        self._crew.spawn(self._reset(slot), slot)

    def verify(self, slot: PoolEntry[T]) -> None:
        """
        Make sure in the background that a connection is alive, then put it where it is needed.

        Args:
            slot: The connection; it has no place in the books at the moment.
        """
        self._ledger.verifying += 1
        self._crew.spawn(self._verify(slot), slot)

    def distrust(self) -> None:
        """Verify all connections, idle ones now, leased ones when they come back: one was lost in use."""
        self._ledger.distrust()
        self._doubt()

    def terminate(self, slot: PoolEntry[T], *, told: bool = False) -> None:
        """
        Close a connection at once.

        Args:
            slot: The connection; it has no place in the books at the moment.
            told: Whether the hook was called already.
        """
        if not told:
            self._hooks.call(self._hooks.on_close, slot.conn)

        self._ledger.totals.closed += 1

        try:
            self._connector.terminate(slot.conn)
        except Exception:
            logger.exception("pool %r: a connection could not be terminated", self.name)

        self.pump()

    def expire(self) -> None:
        """Replace all connections: idle ones now, leased ones when they come back."""
        self._ledger.generation += 1
        self._close_overdue(self.timers.now())
        self.pump()

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - leases get time to come back
        """
        Refuse all that is new, and wait until every connection is closed.

        Args:
            timeout: Seconds; a warning then names the holders of what is left.
        """
        self.state = Lifecycle.CLOSING
        ledger = self._ledger
        ledger.generation += 1  # what comes back is closed
        self.timers.stop()

        while waiter := ledger.head():
            waiter.set_exception(self.refusal())

        self._crew.give_up_connects()  # nobody is there any more who could want one

        while ledger.idle:
            self.retire(ledger.idle.pop())

        if not ledger.size:
            return

        self._drained = self.loop.create_future()

        try:
            async with asyncio.timeout(timeout):
                await self._drained
        except TimeoutError:
            if names := ", ".join(self._watch.holders(self.timers.now(), ledger.max_size)):
                logger.warning("pool %r: closed with connections still in use, held by %s", self.name, names)

    def finish(self) -> list[asyncio.Task[None]]:
        """
        Terminate what is left, at once.

        Returns:
            The tasks that were cancelled; they end within a few turns of the loop.
        """
        self.state = Lifecycle.CLOSED
        ledger = self._ledger
        left = [*ledger.leased, *ledger.idle]
        ledger.leased.clear()
        ledger.idle.clear()

        for slot in left:
            self.terminate(slot)

        return self._crew.disband()

    # -- tasks -----------------------------------------------------------------------------------

    async def _open(self, timeout: float) -> None:  # noqa: ASYNC109 - it differs from attempt to attempt
        ledger = self._ledger
        generation = ledger.generation
        slot: PoolEntry[T] | None = None
        good = False
        start = self.timers.now()

        try:
            async with asyncio.timeout(timeout):
                conn = await self._connector.open()
                self._creates.record(self.timers.now() - start)
                slot = PoolEntry(conn, generation, self._end_of_life())
                ledger.totals.opened += 1
                await self._hooks.opened(conn)

            good = True
        except Exception as error:  # noqa: BLE001 - whatever it is, the waiters shall see it
            self.recovery.failed(error, timeout, again=self.state is Lifecycle.OPEN)
        finally:
            ledger.connecting -= 1

            if not good:
                self.terminate(slot) if slot is not None else self.pump()

        if good and slot is not None:
            self.recovery.answered()
            self._place(slot)

    async def _verify(self, slot: PoolEntry[T], *, doubted: bool = False) -> None:
        self._crew.begun(slot)
        ledger = self._ledger
        good = False

        try:
            if self._connector.is_alive(slot.conn):
                async with asyncio.timeout(self._options.ping_timeout):
                    await self._connector.ping(slot.conn)

                good = self._connector.is_alive(slot.conn)
        except Exception as error:  # noqa: BLE001 - dead is dead
            logger.debug("pool %r: an idle connection is dead: %s", self.name, say(error))
        finally:
            if doubted:
                ledger.doubted -= 1
            else:
                ledger.verifying -= 1

            if not good:
                self._doubt()
                self.terminate(slot)

        if good:
            self._place(slot)

    def _doubt(self) -> None:
        """Verify all idle connections at once: where one has died unnoticed, others may have."""
        if self.state is Lifecycle.OPEN:
            for slot in self._ledger.doubt():
                self._crew.spawn(self._verify(slot, doubted=True), slot)

    async def _reset(self, slot: PoolEntry[T]) -> None:
        self._crew.begun(slot)
        ledger = self._ledger
        good = False

        try:
            async with asyncio.timeout(self._options.ping_timeout):
                await self._connector.reset(slot.conn)

            good = self._connector.is_alive(slot.conn)
        except Exception as error:  # noqa: BLE001 - a session that cannot be reset is not used again
            logger.debug("pool %r: a connection could not be reset: %s", self.name, say(error))
        finally:
            ledger.resetting -= 1

            if not good:
                self.terminate(slot)

        if good:
            self._place(slot)

    async def _close(self, slot: PoolEntry[T]) -> None:
        self._crew.begun(slot)
        ledger = self._ledger
        closed = False
        self._hooks.call(self._hooks.on_close, slot.conn)

        try:
            async with asyncio.timeout(self._options.ping_timeout):
                await self._connector.close(slot.conn)

            closed = True
        except Exception as error:  # noqa: BLE001 - it is closed the hard way
            logger.debug("pool %r: a connection did not close well: %s", self.name, say(error))
        finally:
            ledger.closing -= 1

            if closed:
                ledger.totals.closed += 1
                self.pump()
            else:
                self.terminate(slot, told=True)

    def _place(self, slot: PoolEntry[T]) -> None:
        """Put a connection that is in order where it is needed, unless its time is over."""
        now = self.timers.now()
        slot.trusted_until = slot.expires_at

        if self.state is not Lifecycle.OPEN or self._ledger.outdated(slot, now):
            self.retire(slot)
        else:
            self.offer(slot, now)

        self.pump()

    def _end_of_life(self) -> float:
        lifetime = self._options.max_lifetime
        return (
            float("inf")
            if lifetime is None
            else self.timers.now() + lifetime * (1 - random.uniform(0.025, 0.1))
        )

    def _too_late(self, waiter: Waiter[T], waiting: int) -> TimeoutError:
        """Say that there was no connection in time."""
        ledger = self._ledger
        return too_late(
            self.name,
            seconds=waiter.timeout,
            size=ledger.size,
            max_size=ledger.max_size,
            waiting=waiting,
            holders=self._watch.holders(self.timers.now()),
            failure=self.recovery.failure,
        )

    # -- housekeeping ----------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self.timers.now()
        ledger = self._ledger

        for slot in [slot for slot in ledger.idle if not self._connector.is_alive(slot.conn)]:
            ledger.idle.remove(slot)
            self.terminate(slot)

        self._close_overdue(now)
        self._watch.warn_leaks(now)
        self.pump()
        self.timers.set("tick", _TICK, self._tick)

    def _close_overdue(self, now: float) -> None:
        for slot in self._ledger.overdue(now, self._options.max_idle):
            self._crew.spawn(self._close(slot), slot)
