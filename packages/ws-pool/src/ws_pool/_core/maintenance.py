"""The I/O of a pool: open, verify, reset and close connections, in tasks of the pool.

`PoolState` decides, `Maintainer` does it. No task of a user runs in here, so that no cancellation of
a user can interrupt any of it. The other half of the pool, `ws_pool.pool` and `Checkout`, hands
connections out and takes them back, and does no I/O.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, cast

from ws_core.backoff import spread
from ws_core.errors import describe
from ws_pool._core.background import BackgroundTasks, Timers
from ws_pool._core.deadlines import AcquireDeadlines
from ws_pool._core.leak_detector import LeakDetector
from ws_pool._core.options import Lifecycle, PoolOptions
from ws_pool._core.pool_state import NextAction, PoolEntry, PoolState, Waiter
from ws_pool._core.recovery import Recovery, unusable
from ws_pool._core.statistics import HistogramBuilder
from ws_pool.context import TaskBinding
from ws_pool.errors import AcquireTimeout, UsageError

logger = logging.getLogger("ws_pool")

T = TypeVar("T")

_TICK = 1.0  # seconds between looks at idle and leased connections
_COLLECT_EVERY = 60.0  # seconds between two searches for clients that were never closed


class Maintainer(Generic[T]):
    """
    Keeps a pool's connections.

    A method that takes an entry expects it in no place of the state: neither idle nor leased.
    """

    def __init__(
        self,
        options: PoolOptions[T],
        state: PoolState[T],
        leak_detector: LeakDetector[T],
        create_times: HistogramBuilder,
    ) -> None:
        self.lifecycle = Lifecycle.NEW
        self.forked = False
        self.timers = Timers()
        self.deadlines: AcquireDeadlines[T] = AcquireDeadlines(state, self.timers, self._acquire_timeout)
        self.recovery: Recovery[T] = Recovery(
            options, state, self.timers, lambda timeout: self._tasks.spawn(self._open(timeout))
        )
        self._name = options.name
        self._connector = options.connector
        self._hooks = options.hooks
        self._options = options
        self._state = state
        self._leak_detector = leak_detector
        self._create_times = create_times
        self._tasks: BackgroundTasks[T] = BackgroundTasks(self.timers, self.terminate)
        self.bindings: list[TaskBinding[Any]] = []  # Any: a binding's values are none of the pool's business
        self._collect_at = float("-inf")
        self._drained: asyncio.Future[None] | None = None

    def start(self, clock: Callable[[], float] | None) -> None:
        """Begin to keep connections, in the running loop."""
        self.timers.start(clock)
        self.lifecycle = Lifecycle.OPEN
        self.timers.set("tick", _TICK, self._tick)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that the pool was started in."""
        return self.timers.loop

    def usable_here(self) -> bool:
        """Return whether the pool is open, and this is its loop and its process."""
        return (
            self.lifecycle is Lifecycle.OPEN and not self.forked and asyncio.get_running_loop() is self.loop
        )

    def unusable(self) -> UsageError:
        """Return the error of a pool that cannot be used here and now."""
        return unusable(self._name, self.lifecycle, forked=self.forked)

    def too_many_waiting(self) -> AcquireTimeout:
        """Return the error of a task that would be one more in the queue than ``max_waiting`` allows."""
        waiting = len(self._state.waiters)
        return self._exhausted("as many tasks wait for a connection as max_waiting allows", waiting)

    def run_pending(self) -> None:
        """Begin everything that the state finds to be done."""
        state = self._state

        if self.lifecycle is not Lifecycle.OPEN:
            if self._drained is not None and not self._drained.done() and not state.size:
                self._drained.set_result(None)

            return

        now = self.timers.now()

        while pending := state.next_action(now, may_connect=self.recovery.failure is None):
            action, entry = pending

            if action is NextAction.CONNECT:
                self._tasks.spawn(self._open(self._options.connect_timeout))
            elif action is NextAction.VERIFY:
                self._tasks.spawn(self._verify(cast("PoolEntry[T]", entry)), entry)
            else:
                self._tasks.spawn(self._close(cast("PoolEntry[T]", entry)), entry)

        # The server is down and no connection is left that could still serve the queue: waiting
        # for the timeout would only hide the reason.
        if self.recovery.failure is not None and state.waiters and not state.serving:
            while waiter := state.pop_waiter():
                waiter.set_exception(self.recovery.unavailable())

    def hand_over(self, entry: PoolEntry[T], now: float) -> None:
        """Hand a connection that is in order to the first waiter, or make it idle."""
        state = self._state
        waiter = state.pop_waiter()

        if waiter is None:
            state.put_idle(entry, now, self._options.ping_after)
            return

        # Leased from this moment on, though its new holder runs only in the next turn of the loop:
        # if that task is cancelled meanwhile, it finds the connection in the future and returns it.
        state.leased.add(entry)
        entry.taken_at = now
        entry.holder = None
        waiter.set_result(entry)

    def retire(self, entry: PoolEntry[T]) -> None:
        """Close a connection gracefully, in the background."""
        if self.lifecycle is Lifecycle.CLOSED:
            self.terminate(entry)
            return

        self._state.closing += 1
        self._tasks.spawn(self._close(entry), entry)

    def reset(self, entry: PoolEntry[T]) -> None:
        """Reset a connection's session in the background, then place it where it is needed."""
        self._state.resetting += 1
        self._tasks.spawn(self._reset(entry), entry)

    def finish_release(
        self, entry: PoolEntry[T], pending: Awaitable[object], done: Callable[[PoolEntry[T]], None]
    ) -> None:
        """Await in the background what ``on_release`` has returned, then call ``done``."""
        self._state.resetting += 1
        self._tasks.spawn(self._finish_release(entry, pending, done), entry)

    def verify(self, entry: PoolEntry[T]) -> None:
        """Ping a connection in the background, then place it where it is needed."""
        self._state.verifying += 1
        self._tasks.spawn(self._verify(entry), entry)

    def verify_all(self) -> None:
        """Verify all connections, idle ones now, leased ones at their release: one was lost in use."""
        self._state.mark_untrusted()
        self._verify_idle()

    def terminate(self, entry: PoolEntry[T], *, hook_called: bool = False) -> None:
        """Close a connection at once."""
        if not hook_called and (pending := self._hooks.call(self._hooks.on_close, entry.conn)) is not None:
            self._tasks.spawn_hook(self._hooks.finish(pending, self._options.ping_timeout))

        self._state.totals.closed += 1

        try:
            self._connector.terminate(entry.conn)
        except Exception:
            logger.exception("pool %r: a connection could not be terminated", self._name)

        self.run_pending()

    def expire(self) -> None:
        """Replace all connections: idle ones now, leased ones at their release."""
        self._state.generation += 1
        self._close_evictable(self.timers.now())
        self.run_pending()

    def fit(self) -> None:
        """Close connections above a maximum that was lowered, or open those that are wanted now."""
        state = self._state

        # Those that are closing already count in the size until they are closed.
        while state.idle and state.size - state.closing > state.max_size:
            self.retire(state.idle.pop(0))

        if state.size - state.closing > state.max_size:
            for entry in state.leased:
                entry.trusted_until = float("-inf")  # at its release it is looked at, and may be closed

        self.run_pending()

    async def drain(self, timeout: float) -> None:
        """Refuse new acquires and wait until every connection is closed, or warn about their holders."""
        self.lifecycle = Lifecycle.CLOSING
        state = self._state
        state.generation += 1  # leased connections are closed at their release
        self.timers.stop()

        while waiter := state.pop_waiter():
            waiter.set_exception(self.unusable())

        self._tasks.cancel_connects()  # no waiter is left that could use a new connection

        while state.idle:
            self.retire(state.idle.pop())

        if not state.size:
            return

        self._drained = self.loop.create_future()

        try:
            async with asyncio.timeout(timeout):
                await self._drained
        except TimeoutError:
            if names := ", ".join(self._leak_detector.holders(self.timers.now(), state.max_size)):
                logger.warning("pool %r: closed with connections still in use, held by %s", self._name, names)

    def finish(self) -> list[asyncio.Task[Any]]:
        """Terminate what is left, and return the cancelled tasks, which end in a few turns of the loop."""
        self.lifecycle = Lifecycle.CLOSED
        state = self._state
        left = [*state.leased, *state.idle]
        state.leased.clear()
        state.idle.clear()

        for entry in left:
            self.terminate(entry)

        return self._tasks.cancel_all()

    # -- tasks -----------------------------------------------------------------------------------

    async def _open(self, timeout: float) -> None:
        state = self._state
        generation = state.generation  # of now: `expire` may be called before the connection is open
        entry: PoolEntry[T] | None = None
        good = False
        start = self.timers.now()

        try:
            async with asyncio.timeout(timeout):
                conn = await self._connector.open()
                self._create_times.record(self.timers.now() - start)
                entry = PoolEntry(conn, generation, self._end_of_life())
                state.totals.opened += 1
                await self._hooks.run(self._hooks.on_open, conn)

            good = True
        except Exception as error:  # noqa: BLE001 - whatever it is, the waiters get it
            self.recovery.failed(error, timeout, again=self.lifecycle is Lifecycle.OPEN)
        finally:  # on cancellation too: the state must not count an attempt that has ended
            state.connecting -= 1

            if entry is None:
                self.run_pending()
            elif not good:
                self.terminate(entry)

        if good and entry is not None:
            self.recovery.succeeded()
            self._place(entry)

    async def _verify(self, entry: PoolEntry[T], *, suspected: bool = False, unused: bool = False) -> None:
        self._tasks.started(entry)
        state = self._state
        good = False

        try:
            if self._connector.is_alive(entry.conn):
                async with asyncio.timeout(self._options.ping_timeout):
                    await self._connector.ping(entry.conn)

                # A ping may return and leave an exchange cut short, or a connection closed by the server.
                good = self._connector.is_alive(entry.conn)
        except Exception as error:  # noqa: BLE001 - whatever it is, the connection cannot be used
            logger.debug("pool %r: an idle connection is dead: %s", self._name, describe(error))
        finally:
            if suspected:
                state.suspected -= 1
            else:
                state.verifying -= 1

            if not good:
                self._verify_idle()
                self.terminate(entry)

        if good and unused and not state.waiters and self.lifecycle is Lifecycle.OPEN:
            state.keep_idle(entry, self.timers.now(), self._options.ping_after)
            self.run_pending()
        elif good:
            self._place(entry)

    def _verify_idle(self) -> None:
        """Verify all idle connections at once: where one has died unnoticed, others may have as well."""
        if self.lifecycle is Lifecycle.OPEN:
            for entry in self._state.take_suspects():
                self._tasks.spawn(self._verify(entry, suspected=True), entry)

    async def _reset(self, entry: PoolEntry[T]) -> None:
        self._tasks.started(entry)
        state = self._state
        good = False

        try:
            async with asyncio.timeout(self._options.ping_timeout):
                await self._connector.reset(entry.conn)

            good = self._connector.is_alive(entry.conn)
        except Exception as error:  # noqa: BLE001 - a session that cannot be reset is not used again
            logger.debug("pool %r: a connection could not be reset: %s", self._name, describe(error))
        finally:
            state.resetting -= 1

            if not good:
                self.terminate(entry)

        if good:
            self._place(entry)

    async def _finish_release(
        self, entry: PoolEntry[T], pending: Awaitable[object], done: Callable[[PoolEntry[T]], None]
    ) -> None:
        self._tasks.started(entry)
        good = False

        try:
            good = await self._hooks.finish(pending, self._options.ping_timeout)
        finally:
            self._state.resetting -= 1

            if not good:  # the hook was cut short, perhaps in the middle of an exchange
                self.terminate(entry)

        if good:
            done(entry)

    async def _close(self, entry: PoolEntry[T]) -> None:
        self._tasks.started(entry)
        state = self._state
        closed = False

        try:
            async with asyncio.timeout(self._options.ping_timeout):
                await self._hooks.run(self._hooks.on_close, entry.conn)
                await self._connector.close(entry.conn)

            closed = True
        except Exception as error:  # noqa: BLE001 - it is closed the hard way
            logger.debug("pool %r: a connection did not close well: %s", self._name, describe(error))
        finally:
            state.closing -= 1

            if closed:
                state.totals.closed += 1
                self.run_pending()
            else:
                self.terminate(entry, hook_called=True)

    def _place(self, entry: PoolEntry[T]) -> None:
        """Place a connection that is in order where it is needed, or close it when it is outdated."""
        now = self.timers.now()
        entry.trusted_until = entry.expires_at  # it has just answered, whatever happened to others

        if self.lifecycle is not Lifecycle.OPEN or self._state.unwanted(entry, now):
            self.retire(entry)
        else:
            self.hand_over(entry, now)

        self.run_pending()

    def _end_of_life(self) -> float:
        lifetime = self._options.max_lifetime

        if lifetime is None:
            return float("inf")

        return self.timers.now() + spread(lifetime, 0.9, 0.975)  # opened together, not closed together

    def _acquire_timeout(self, waiter: Waiter[T], waiting: int) -> AcquireTimeout:
        return self._exhausted(f"no connection was free within {waiter.timeout:g} s", waiting)

    def _exhausted(self, what: str, waiting: int) -> AcquireTimeout:
        """Return the error of a task that got no connection, with the longest holders."""
        state, failure = self._state, self.recovery.failure
        holders = self._leak_detector.holders(self.timers.now())
        details = [f"size {state.size} of {state.max_size}", f"{waiting} waiting"]

        if failure is not None:
            details.append(f"the last connect failed: {describe(failure)}")

        if holders:
            details.append("longest holders: " + ", ".join(holders))

        return AcquireTimeout(
            f"pool {self._name!r}: {what} ({'; '.join(details)})",
            pool=self._name,
            size=state.size,
            max_size=state.max_size,
            waiting=waiting,
            holders=holders,
        )

    # -- housekeeping ----------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self.timers.now()
        state = self._state

        # Connections that the server has closed are found here, before a user would find them.
        for entry in [entry for entry in state.idle if not self._connector.is_alive(entry.conn)]:
            state.idle.remove(entry)
            self.terminate(entry)

        self._close_evictable(now)
        self._keep_alive(now)
        self._leak_detector.warn_leaks(now)
        self._drop_ended(now)
        self.run_pending()
        self.timers.set("tick", _TICK, self._tick)

    def _keep_alive(self, now: float) -> None:
        """Ping idle connections that were silent for so long that a firewall may forget them."""
        if self._options.keepalive is not None:
            for entry in self._state.take_silent(now, self._options.keepalive):
                self._tasks.spawn(self._verify(entry, suspected=True, unused=True), entry)

    def _drop_ended(self, now: float) -> None:
        """Find the connections of tasks that have ended inside of their blocks."""
        leased = self._state.leased

        if not self.bindings or not sum(entry.holder_ended() for entry in leased):
            return

        # Such a block can be left only by someone else who holds its client, since a lease may
        # wander between tasks; so nothing is taken away. But the binding of the ended task must not
        # be what keeps the client alive: a client that nobody holds is collected, and
        # `Lease.__del__` warns and gives the connection back.
        for binding in self.bindings:
            binding.drop_ended()

        # A pool that is nearly exhausted cannot wait until the collector comes by itself.
        if len(leased) >= self._leak_detector.warn_at and now >= self._collect_at:
            self._collect_at = now + _COLLECT_EVERY
            gc.collect()

    def _close_evictable(self, now: float) -> None:
        for entry in self._state.evictable(now, self._options.max_idle):
            self._tasks.spawn(self._close(entry), entry)
