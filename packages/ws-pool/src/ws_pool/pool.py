"""The generic pool: connections of any kind, each used by one task at a time.

`Pool` needs a `Connector`, which opens, checks and closes connections; the SQL pools of this
distribution are built on it. All I/O of the pool (connect, ping, reset, close) runs in tasks that
the pool owns. A task that acquires a connection only ever waits for a future, so it can be
cancelled at any moment without a connection being lost, and it gets whichever comes first: one
that is released, one that is verified, or a new one.

This module knows no protocol and no driver.
"""

from __future__ import annotations

import asyncio
import warnings
from asyncio import current_task, get_running_loop
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from ws_core.component import Health
from ws_core.errors import describe
from ws_pool._core import fork
from ws_pool._core.checkout import Checkout
from ws_pool._core.config import pool_name
from ws_pool._core.connector import Connector
from ws_pool._core.leak_detector import LeakDetector
from ws_pool._core.lease import Lease, LeaseContext
from ws_pool._core.maintenance import Maintainer
from ws_pool._core.options import Lifecycle, PoolHooks, PoolOptions, check_numbers
from ws_pool._core.pool_state import PoolEntry, PoolState
from ws_pool._core.startable import Startable
from ws_pool._core.statistics import PoolMetrics, PoolStatistics
from ws_pool.context import TaskBinding
from ws_pool.errors import AcquireTimeout, UsageError

__all__ = ("Connector", "Lease", "Pool", "PoolStatistics")

for _public in (Connector, Lease, PoolStatistics):
    _public.__module__ = __name__

T = TypeVar("T")

_NOWHERE = cast("asyncio.AbstractEventLoop", object())  # the loop of a pool that cannot be used


class Pool(Startable, Generic[T]):
    """
    A pool of connections.

    Args:
        connector: Opens, checks and closes the connections.
        name: The name in errors, logs and statistics.
        min_size: Connections kept open.
        max_size: Most connections at once.
        acquire_timeout: Seconds that `acquire` waits at most.
        max_waiting: Most tasks that wait while all connections are in use; one more fails at once. None
            for any number.
        connect_timeout: Seconds for opening one connection.
        max_connecting: Most connections to open at once.
        ping_after: Seconds of idleness after which a connection is pinged before use.
        ping_timeout: Seconds for that ping, and for a reset.
        max_lifetime: Seconds after which a connection is replaced, less a random 2.5 to 10 %, so
            that connections opened together are not closed together; None for no limit.
        max_idle: Seconds of idleness after which a connection above ``min_size`` is closed.
        keepalive: Seconds of silence after which an idle connection is pinged, so that no firewall
            or server closes it and a dead one is replaced before it is needed; None for never.
        leak_threshold: Seconds of one lease after which a warning shows where it was acquired;
            None (the default) does not record the place.
        on_open: Called with each new connection. This and the other hooks may be coroutine functions,
            which are awaited. A hook that raises an error is logged; it never loses a connection.
        on_acquire: Called with each connection that is acquired; awaited for ``connect_timeout`` at
            most, as a part of the acquire.
        on_release: Called with each connection that is released; awaited in the background for
            ``ping_timeout`` at most, before the connection is used again.
        setup: Called with each connection that is acquired, before its holder gets it, and awaited if
            it can be, for ``connect_timeout`` at most: for settings that a session's reset takes back.
            What it raises, `acquire` raises, and the connection is closed.
        on_close: Called with each connection before it is closed; awaited for ``ping_timeout`` at
            most. One that is terminated is closed meanwhile.
        is_refusal: Returns whether a connect failed because the server refuses us, as for a wrong
            password: the pauses between attempts then grow to 30 s instead of 0.5 s.
        is_lost: Returns whether a connection that is released dead was ended by the server, not by
            its user: all others are then verified before they are used again.
        clock: Returns the time in seconds; `time.monotonic` by default.

    Example:
        ```python
        from ws_pool.pool import Pool

        class Sockets:
            async def open(self): return object()
            def is_alive(self, conn): return True
            def is_clean(self, conn): return True
            async def ping(self, conn): ...
            async def reset(self, conn): ...
            async def close(self, conn): ...
            def terminate(self, conn): ...

        async with Pool(Sockets(), max_size=2) as pool:
            async with pool.lease() as connection:
                print(connection, pool.statistics().leased)
        ```
    """

    def __init__(
        self,
        connector: Connector[T],
        *,
        name: str = "default",
        min_size: int = 1,
        max_size: int = 10,
        acquire_timeout: float = 30.0,
        connect_timeout: float = 5.0,
        max_waiting: int | None = None,
        max_connecting: int = 2,
        ping_after: float = 1.0,
        ping_timeout: float = 1.0,
        max_lifetime: float | None = 3600.0,
        max_idle: float = 600.0,
        keepalive: float | None = None,
        leak_threshold: float | None = None,
        on_open: Callable[[T], object] | None = None,
        on_acquire: Callable[[T], object] | None = None,
        on_release: Callable[[T], object] | None = None,
        on_close: Callable[[T], object] | None = None,
        setup: Callable[[T], object] | None = None,
        is_refusal: Callable[[BaseException], bool] | None = None,
        is_lost: Callable[[T], bool] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        check_numbers(min_size=min_size, max_size=max_size, max_connecting=max_connecting)
        self.name: str = pool_name(name, type(self).__name__)
        self._connector = connector
        self._is_alive = connector.is_alive
        self._is_clean = connector.is_clean
        self._acquire_timeout = acquire_timeout
        self._ping_after = ping_after
        self._ping_timeout = ping_timeout
        self._clock = clock
        hooks = PoolHooks(name, on_open, on_acquire, on_release, on_close, setup)
        options = PoolOptions(
            name=name,
            connector=connector,
            connect_timeout=connect_timeout,
            ping_after=ping_after,
            ping_timeout=ping_timeout,
            max_lifetime=max_lifetime,
            max_idle=max_idle,
            keepalive=keepalive,
            max_waiting=max_waiting,
            is_refusal=is_refusal,
            is_lost=is_lost,
            hooks=hooks,
        )
        self._observed = any(part is not None for part in (on_acquire, on_release, setup, leak_threshold))
        self._state: PoolState[T] = PoolState(
            min_size=min_size, max_size=max_size, max_connecting=max_connecting
        )
        self._leak_detector: LeakDetector[T] = LeakDetector(name, self._state, leak_threshold)
        self._metrics: PoolMetrics[T] = PoolMetrics(name, self._state)
        self._leases = self._metrics.leases
        self._maintainer: Maintainer[T] = Maintainer(
            options, self._state, self._leak_detector, self._metrics.creates
        )
        self._checkout: Checkout[T] = Checkout(
            options,
            self._state,
            self._maintainer,
            self._metrics,
            self._leak_detector,
            observed=self._observed,
        )
        self._warn_at = self._leak_detector.warn_at
        self._loop = _NOWHERE
        self._now: Callable[[], float] = float
        self._closed: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        state = self._state
        use = f"{len(state.leased)} leased of {state.max_size}"
        return f"<Pool {self.name!r} of {self._connector}, {self._maintainer.lifecycle.name.lower()}: {use}>"

    def __del__(self) -> None:
        if getattr(self, "_loop", _NOWHERE) is not _NOWHERE:
            message = f"pool {self.name!r} was not closed: use `async with` or await its close()"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    @property
    def connector(self) -> Connector[T]:
        """The connector, which opens and closes the connections."""
        return self._connector

    @property
    def ping_timeout(self) -> float:
        """Seconds that maintenance waits for an answer of the server."""
        return self._ping_timeout

    @property
    def bindings(self) -> list[TaskBinding[Any]]:
        """Bindings of tasks to clients that hold connections of this pool; add those of your clients."""
        return self._maintainer.bindings

    @property
    def ready(self) -> bool:
        """Whether connections can be acquired."""
        return self._maintainer.lifecycle is Lifecycle.OPEN

    @property
    def down(self) -> bool:
        """Whether the server cannot be reached at the moment."""
        return self._maintainer.recovery.failure is not None

    @property
    def full(self) -> bool:
        """Whether all connections are in use."""
        return len(self._state.leased) >= self._state.max_size

    async def start(self) -> None:
        """
        Start in the running loop; with a ``min_size`` the server must answer.

        Raises:
            UnavailableError: The server cannot be reached; nothing is left behind.
            UsageError: The pool was started before.
        """
        if self._maintainer.lifecycle is not Lifecycle.NEW:
            message = f"pool {self.name!r} was started before: make a new one"
            raise UsageError(message, pool=self.name)

        self._maintainer.start(self._clock)
        self._loop, self._now = self._maintainer.loop, self._maintainer.timers.now
        fork.register(self)

        if not self._state.min_size:
            return

        try:
            self.release(await self.acquire())
        except BaseException:
            await self.close(timeout=0)
            raise

    async def acquire(self, *, timeout: float | None = None) -> Lease[T]:
        """
        Acquire a connection, to be given back with `release`. `lease` does both around a block.

        Args:
            timeout: Seconds to wait at most; the pool's ``acquire_timeout`` by default.

        Returns:
            The lease.

        Raises:
            AcquireTimeout: No connection was free in time; the message names the longest holders.
            UnavailableError: The server is down.
            NotReadyError: The pool was not started.
            ClosedError: The pool was closed.
            UsageError: The pool belongs to another event loop, or to the process before a fork.
        """
        # None in any other loop, and when the pool is not open, since `_loop` is then a dummy: one
        # call checks the loop, the process and the lifecycle, and returns the holder besides.
        task = current_task(self._loop)

        if task is None:
            raise self._maintainer.unusable()

        state = self._state
        now = self._now()

        # The fast path, inlined because every statement passes it (tools/bench sql measures it): an
        # idle connection that was used a moment ago is taken without a ping. The queue must be
        # empty, or a newcomer would overtake a waiter.
        if state.idle and not state.waiters:
            entry = state.idle.pop()

            if now < entry.check_at and self._is_alive(entry.conn):
                state.leased.add(entry)
                entry.taken_at = now
                entry.holder = task

                if self._observed or (
                    len(state.leased) >= self._warn_at and now >= self._leak_detector.quiet_until
                ):
                    await self._checkout.observe_acquire(entry)

                return Lease(self, entry)

            state.idle.append(entry)

        entry = await self._checkout.wait(task, now, self._acquire_timeout if timeout is None else timeout)
        return Lease(self, entry)

    def release(self, lease: Lease[T], *, discard: bool = False) -> None:
        """
        Release a connection. Never waits: the pool resets or closes it in the background.

        Args:
            lease: What `acquire` returned.
            discard: Close the connection instead of keeping it.

        Raises:
            UsageError: The lease was released before, or belongs to another pool.
        """
        entry = lease._entry

        if entry is None or lease._pool is not self:
            message = f"pool {self.name!r}: this connection was released before, or is not the pool's own"
            raise UsageError(message, pool=self.name)

        lease._entry = None
        state = self._state

        if discard or self._observed or not self._is_clean(entry.conn):
            self._checkout.take_back(entry, discard=discard)
            return

        now = self._now()

        if now >= entry.trusted_until or entry.generation != state.generation or entry not in state.leased:
            self._checkout.take_back(entry)
            return

        # The fast path, inlined like that of `acquire`: the connection is in order, and goes to the
        # first waiter or becomes idle. These lines are HistogramBuilder.record, Maintainer.hand_over
        # and PoolState.put_idle without their calls.
        used = now - entry.taken_at
        self._leases.counts[int(used * 1e6).bit_length()] += 1
        self._leases.total += used
        entry.holder = None

        while state.waiters:
            waiter = state.waiters.popleft()

            if not waiter.done():
                entry.taken_at = now
                waiter.set_result(entry)
                return

        state.leased.remove(entry)
        entry.idle_since = now
        entry.check_at = now + self._ping_after
        state.idle.append(entry)

    def lease(self, *, timeout: float | None = None) -> LeaseContext[T]:
        """
        Acquire a connection for the length of a block.

        Args:
            timeout: Seconds to wait at most; the pool's ``acquire_timeout`` by default.

        Returns:
            An async context manager of the connection.
        """
        return LeaseContext(self, timeout)

    def resize(self, *, min_size: int | None = None, max_size: int | None = None) -> None:
        """
        Change the bounds of a pool at run time.

        Connections above a lower ``max_size`` are closed: idle ones now, those in use when they are
        released.

        Args:
            min_size: Connections kept open; as before by default.
            max_size: Most connections at once; as before by default.

        Raises:
            UsageError: The bounds do not fit together.
        """
        state = self._state
        least = state.min_size if min_size is None else min_size
        most = state.max_size if max_size is None else max_size
        check_numbers(min_size=least, max_size=most, max_connecting=state.max_connecting)
        state.min_size, state.max_size = least, most
        self._leak_detector.resize()
        self._warn_at = self._leak_detector.warn_at

        if self._maintainer.lifecycle is Lifecycle.OPEN:
            self._maintainer.fit()

    def held_by(self, task: asyncio.Task[Any] | None) -> bool:
        """
        Return whether a task holds a connection of the pool.

        Args:
            task: The task.

        Returns:
            Whether it acquired one that was not released since.
        """
        return any(entry.holder is task for entry in self._state.leased)

    def expire(self) -> None:
        """Replace all connections: idle ones now, leased ones at their release."""
        self._maintainer.expire()

    async def health(self, *, timeout: float = 5.0) -> Health:
        """
        Ping the server over a connection of the pool.

        A pool whose connections are all in use, and whose server is not down, is healthy: the
        detail says so.

        Args:
            timeout: Seconds; a server that does not answer in time is not healthy.

        Returns:
            Whether it answers, with the latency.
        """
        if not self._maintainer.usable_here():
            return Health(ok=False, detail=str(self._maintainer.unusable()))

        start = self._now()

        try:
            async with self.lease(timeout=timeout) as conn, asyncio.timeout(timeout):
                await self._connector.ping(conn)
        except Exception as error:  # noqa: BLE001 - any error is the result
            busy = isinstance(error, AcquireTimeout) and self.full and not self.down
            return Health(ok=busy, detail=describe(error), latency=self._now() - start)

        return Health(ok=True, latency=self._now() - start)

    async def close(self, *, timeout: float = 10.0) -> None:
        """
        Refuse new acquires, wait until all leases are released, close all connections.

        May be called again; when cancelled, it closes at once.

        Args:
            timeout: Seconds for leases to be released; those left are terminated, and a warning
                names their holders.
        """
        maintainer = self._maintainer

        if maintainer.lifecycle in {Lifecycle.NEW, Lifecycle.CLOSED}:
            maintainer.lifecycle = Lifecycle.CLOSED
            return

        if get_running_loop() is not self._loop:
            if not maintainer.loop.is_closed():
                raise maintainer.unusable()

            self._finish()  # the pool's loop is gone: nothing is left that could be awaited
            return

        if self._closed is not None:
            await asyncio.shield(self._closed)
            return

        self._closed = maintainer.loop.create_future()

        try:
            await maintainer.drain(timeout)
        finally:
            tasks = self._finish()
            self._closed.set_result(None)

        await asyncio.gather(*tasks, return_exceptions=True)

    def statistics(self) -> PoolStatistics:
        """Return a frozen snapshot of the pool."""
        return self._metrics.snapshot(self._maintainer.recovery.failure)

    def _finish(self) -> list[asyncio.Task[Any]]:
        """Terminate what is left, count how long it was in use, and return the cancelled tasks."""
        for entry in self._state.leased:
            self._leases.record(self._now() - entry.taken_at)

        self._loop = _NOWHERE
        return self._maintainer.finish()

    def _forked(self) -> None:
        """Called in the child after a fork: the connections are the parent's."""
        self._loop = _NOWHERE
        self._maintainer.forked = True

    def _abandoned(self, entry: PoolEntry[T]) -> None:
        """Warn about a lease that was dropped without a release, and take its connection back later."""
        if entry not in self._state.leased:
            return

        message, loop = self._leak_detector.abandoned(entry), self._maintainer.loop

        # This runs in a destructor: any thread, any moment, even in the middle of `release`. So the
        # pool's state is touched later, in its loop; and before the warning, which may be an error.
        if not loop.is_closed():
            loop.call_soon_threadsafe(lambda: self._checkout.take_back(entry, discard=True))

        warnings.warn(message, ResourceWarning, stacklevel=3)
