"""The generic pool: connections of any kind, lent one at a time.

`Pool` needs a `Connector`, which opens, checks and closes connections; the SQL pools of this
distribution are built on it. All I/O of the pool (connect, ping, reset, close) runs in tasks that
the pool owns. A task that asks for a connection only ever waits for a future, so it can be
cancelled at any moment without a connection being lost, and it takes whichever comes first: one
that is returned, one that is verified, or a new one.

This module knows no protocol and no driver.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
import warnings
from asyncio import current_task, get_running_loop
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar, cast

from ws_core.component import Health
from ws_pool import _fork
from ws_pool._connector import Connector
from ws_pool._ledger import Ledger, Slot, Waiter
from ws_pool._outage import say
from ws_pool._statistics import Histogram, HistogramBuilder, PoolStatistics
from ws_pool._terms import Hooks, Options, State, check_numbers
from ws_pool._upkeep import Upkeep
from ws_pool.errors import AcquireTimeout, UsageError

__all__ = ("Connector", "Lease", "Pool", "PoolStatistics")

for _public in (Connector, PoolStatistics):
    _public.__module__ = __name__

logger: logging.Logger = logging.getLogger("ws_pool")

T = TypeVar("T")

_LOW_WATER_EVERY = 60.0  # seconds between two low-water warnings
_OPEN = State.OPEN
_NOWHERE = cast("asyncio.AbstractEventLoop", object())  # the loop of a pool that cannot be used


class Lease(Generic[T]):
    """
    A connection on loan. After the release the handle is dead and says so.

    Made by `Pool.acquire`.
    """

    __slots__ = ("__weakref__", "_pool", "_slot")

    def __init__(self, pool: Pool[T], slot: Slot[T]) -> None:
        self._pool = pool
        self._slot: Slot[T] | None = slot

    def __repr__(self) -> str:
        state = "released" if self._slot is None else repr(self._slot.conn)
        return f"<Lease of pool {self._pool.name!r}: {state}>"

    @property
    def connection(self) -> T:
        """
        The connection.

        Raises:
            UsageError: The lease was released.
        """
        slot = self._slot

        if slot is None:
            message = f"pool {self._pool.name!r}: this connection was released; acquire another one"
            raise UsageError(message, pool=self._pool.name)

        return slot.conn

    def __del__(self) -> None:
        slot = self._slot

        if slot is not None:
            self._pool._abandoned(slot)  # noqa: SLF001 - a lease is the pool's own half


class Pool(Generic[T]):
    """
    A pool of connections.

    Args:
        connector: Opens, checks and closes the connections.
        name: The name in errors, logs and statistics.
        min_size: Connections kept open.
        max_size: Most connections at once.
        acquire_timeout: Seconds that `acquire` waits at most.
        connect_timeout: Seconds for opening one connection.
        max_connecting: Most connections to open at once.
        ping_after: Seconds of idleness after which a connection is pinged before use.
        ping_timeout: Seconds for that ping, and for a reset.
        max_lifetime: Seconds after which a connection is replaced, minus 2.5 to 10 % by chance
            so that those opened together don't end together; None for no limit.
        max_idle: Seconds of idleness after which a connection above ``min_size`` is closed.
        leak_threshold: Seconds of one lease after which a warning shows where it was acquired;
            None (the default) does not record the place.
        on_open: Called with each new connection; may be a coroutine function.
        on_acquire: Called with each connection lent.
        on_release: Called with each connection given back.
        on_close: Called with each connection before it is closed. A hook that raises is logged;
            it never loses a connection.
        is_refusal: Tells whether a connect failed because the server refuses us, as for a wrong
            password: the pauses between attempts then grow to 30 s instead of 0.5 s.
        clock: Gives the time in seconds; `time.monotonic` by default.

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

    def __init__(  # noqa: PLR0913 - keyword-only options, each with a default
        self,
        connector: Connector[T],
        *,
        name: str = "default",
        min_size: int = 1,
        max_size: int = 10,
        acquire_timeout: float = 30.0,
        connect_timeout: float = 5.0,
        max_connecting: int = 2,
        ping_after: float = 1.0,
        ping_timeout: float = 1.0,
        max_lifetime: float | None = 3600.0,
        max_idle: float = 600.0,
        leak_threshold: float | None = None,
        on_open: Callable[[T], object] | None = None,
        on_acquire: Callable[[T], object] | None = None,
        on_release: Callable[[T], object] | None = None,
        on_close: Callable[[T], object] | None = None,
        is_refusal: Callable[[BaseException], bool] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        check_numbers(min_size=min_size, max_size=max_size, max_connecting=max_connecting)
        self.name = name
        self._connector = connector
        self._is_alive = connector.is_alive
        self._is_clean = connector.is_clean
        self._acquire_timeout = acquire_timeout
        self._ping_after = ping_after
        self._ping_timeout = ping_timeout
        self._leak_threshold = leak_threshold
        self._clock = clock
        self._hooks = Hooks(on_open, on_acquire, on_release, on_close)
        self._ledger: Ledger[T] = Ledger(min_size=min_size, max_size=max_size, max_connecting=max_connecting)
        options = Options(
            connect_timeout, ping_after, ping_timeout, max_lifetime, max_idle, leak_threshold, is_refusal
        )
        self._upkeep = Upkeep(name, connector, self._ledger, options, self._hooks)
        self._watched = any(hook is not None for hook in (on_acquire, on_release, leak_threshold))
        self._loop = _NOWHERE
        self._now: Callable[[], float] = float
        self._waits = HistogramBuilder()
        self._leases = HistogramBuilder()
        self._low_water = max_size - (max_size - 1) // 3
        self._low_water_next = float("-inf") if max_size > 2 else float("inf")
        self._closed: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        ledger = self._ledger
        use = f"{len(ledger.leased)} leased of {ledger.max_size}"
        return f"<Pool {self.name!r} of {self._connector}, {self._upkeep.state.name.lower()}: {use}>"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        if getattr(self, "_loop", _NOWHERE) is not _NOWHERE:
            message = f"pool {self.name!r} was not closed: use `async with` or await its close()"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    @property
    def connector(self) -> Connector[T]:
        """What opens and closes the connections."""
        return self._connector

    @property
    def ping_timeout(self) -> float:
        """Seconds that housekeeping waits for an answer of the server."""
        return self._ping_timeout

    @property
    def ready(self) -> bool:
        """Whether connections can be acquired."""
        return self._upkeep.state is State.OPEN

    @property
    def down(self) -> bool:
        """Whether the server cannot be reached at the moment."""
        return self._upkeep.failure is not None

    @property
    def full(self) -> bool:
        """Whether all connections are in use."""
        return len(self._ledger.leased) >= self._ledger.max_size

    async def start(self) -> None:
        """
        Start in the running loop; with a ``min_size`` the server must answer.

        Raises:
            UnavailableError: The server cannot be reached; nothing is left behind.
            UsageError: The pool was started before.
        """
        if self._upkeep.state is not State.NEW:
            message = f"pool {self.name!r} was started before: make a new one"
            raise UsageError(message, pool=self.name)

        self._upkeep.start(self._clock)
        self._loop, self._now = self._upkeep.loop, self._upkeep.now
        _fork.watch(self)

        if not self._ledger.min_size:
            return

        try:
            self.release(await self.acquire())
        except BaseException:
            await self.close(timeout=0)
            raise

    async def acquire(self, *, timeout: float | None = None) -> Lease[T]:  # noqa: ASYNC109 - a queue's own limit
        """
        Take a connection; give it back with `release`. `lease` does both around a block.

        Args:
            timeout: Seconds to wait at most; the pool's ``acquire_timeout`` by default.

        Returns:
            The lease.

        Raises:
            AcquireTimeout: None was free in time; the message names the longest holders.
            UnavailableError: The server is down.
            NotReadyError: The pool was not started.
            ClosedError: The pool was closed.
            UsageError: The pool belongs to another event loop, or to the process before a fork.
        """
        task = current_task(self._loop)  # none when another loop runs: cheaper than to ask which one does

        if task is None:
            raise self._upkeep.refusal()

        ledger = self._ledger
        now = self._now()

        if ledger.idle and not ledger.waiters:
            slot = ledger.idle.pop()

            if now < slot.check_at and self._is_alive(slot.conn):
                ledger.leased.add(slot)
                slot.taken_at = now
                slot.holder = task

                if self._watched or (len(ledger.leased) >= self._low_water and now >= self._low_water_next):
                    self._look_at(slot)

                return Lease(self, slot)

            ledger.idle.append(slot)

        return await self._wait(task, now, self._acquire_timeout if timeout is None else timeout)

    def release(self, lease: Lease[T], *, discard: bool = False) -> None:
        """
        Give a connection back. Never waits: what has to be done to it, the pool does by itself.

        Args:
            lease: What `acquire` returned.
            discard: Close the connection instead of keeping it.

        Raises:
            UsageError: The lease was released before, or is another pool's.
        """
        slot = lease._slot  # noqa: SLF001 - a lease is the pool's own half

        if slot is None or lease._pool is not self:  # noqa: SLF001 - as above
            message = f"pool {self.name!r}: this connection was released before, or is not the pool's own"
            raise UsageError(message, pool=self.name)

        lease._slot = None  # noqa: SLF001 - as above
        ledger = self._ledger

        if discard or self._watched or not self._is_clean(slot.conn):
            self._take_back(slot, discard)
            return

        now = self._now()

        if now >= slot.expires_at or slot.generation != ledger.generation or slot not in ledger.leased:
            self._take_back(slot)
            return

        # The usual case, which is worth its own few lines: the connection is in order, and either
        # goes to the head of the queue or to rest.
        used = now - slot.taken_at
        self._leases.counts[int(used * 1e6).bit_length()] += 1
        self._leases.total += used
        slot.holder = None

        while ledger.waiters:
            waiter = ledger.waiters.popleft()

            if not waiter.done():
                slot.taken_at = now
                waiter.set_result(slot)
                return

        ledger.leased.remove(slot)
        slot.idle_since = now
        slot.check_at = now + self._ping_after
        ledger.idle.append(slot)

    def lease(self, *, timeout: float | None = None) -> _LeaseBlock[T]:
        """
        Take a connection for the length of a block.

        Args:
            timeout: Seconds to wait at most; the pool's ``acquire_timeout`` by default.

        Returns:
            An async context manager that gives the connection.
        """
        return _LeaseBlock(self, timeout)

    def expire(self) -> None:
        """Replace all connections: idle ones now, leased ones when they come back."""
        self._upkeep.expire()

    async def health(self, *, timeout: float = 5.0) -> Health:  # noqa: ASYNC109 - part of the answer
        """
        Ask the server over a connection of the pool.

        A pool whose connections are all in use, with nothing amiss, is healthy: the detail says so.

        Args:
            timeout: Seconds; a server that does not answer in time is not healthy.

        Returns:
            Whether it answers, with the time that took.
        """
        if not self._upkeep.usable_here():
            return Health(ok=False, detail=str(self._upkeep.refusal()))

        start = self._now()

        try:
            async with self.lease(timeout=timeout) as conn, asyncio.timeout(timeout):
                await self._connector.ping(conn)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            busy = isinstance(error, AcquireTimeout) and self.full and not self.down
            return Health(ok=busy, detail=say(error), latency=self._now() - start)

        return Health(ok=True, latency=self._now() - start)

    async def close(self, *, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - leases get time to drain
        """
        Refuse new acquires, wait for leases to come back, close everything.

        May be called again; when cancelled, it closes at once.

        Args:
            timeout: Seconds for leases to come back; those left are terminated, and a warning names
                their holders.
        """
        upkeep = self._upkeep

        if upkeep.state in {State.NEW, State.CLOSED}:
            upkeep.state = State.CLOSED
            return

        if get_running_loop() is not self._loop:
            if not upkeep.loop.is_closed():
                raise upkeep.refusal()

            self._finish()
            return

        if self._closed is not None:
            await asyncio.shield(self._closed)
            return

        self._closed = upkeep.loop.create_future()

        try:
            await upkeep.drain(timeout)
        finally:
            tasks = self._finish()
            self._closed.set_result(None)

        await asyncio.gather(*tasks, return_exceptions=True)

    def statistics(self) -> PoolStatistics:
        """Give a frozen snapshot of the pool."""
        ledger, totals = self._ledger, self._ledger.totals
        leases = self._leases.snapshot()
        waits = list(self._waits.counts)
        waits[0] += leases.count + len(ledger.leased) - sum(waits)  # those who did not wait are not recorded
        failure = self._upkeep.failure
        return PoolStatistics(
            name=self.name,
            min_size=ledger.min_size,
            max_size=ledger.max_size,
            size=ledger.size,
            idle=len(ledger.idle),
            leased=len(ledger.leased),
            connecting=ledger.connecting,
            waiting=len(ledger.waiters),
            opened=totals.opened,
            closed=totals.closed,
            timeouts=totals.timeouts,
            failures=totals.failures,
            wait_time=Histogram(tuple(waits), self._waits.total),
            lease_time=leases,
            down="" if failure is None else say(failure),
            create_time=self._upkeep.creates.snapshot(),
        )

    def _finish(self) -> list[asyncio.Task[None]]:
        """Terminate what is left, and count how long it was in use."""
        for slot in self._ledger.leased:
            self._leases.record(self._now() - slot.taken_at)

        self._loop = _NOWHERE
        return self._upkeep.finish()

    def _forked(self) -> None:
        """Called in the child after a fork: the connections are the parent's."""
        self._loop = _NOWHERE
        self._upkeep.forked = True

    def _look_at(self, slot: Slot[T]) -> None:
        """Do what is asked for at an acquire, or due because the pool runs low."""
        if len(self._ledger.leased) >= self._low_water:
            self._warn_low_water(slot.taken_at)

        if self._leak_threshold is not None:
            slot.warned = False
            frames = traceback.walk_stack(sys._getframe(1))  # noqa: SLF001 - the cheap way to a stack
            slot.stack = traceback.StackSummary.extract(frames, limit=16, lookup_lines=False)
            slot.stack.reverse()  # the innermost call last, as in a traceback

        self._upkeep.hook(self._hooks.on_acquire, slot.conn)

    async def _wait(  # the rest of acquire
        self,
        task: asyncio.Task[object],
        now: float,
        timeout: float,  # noqa: ASYNC109 - see acquire
    ) -> Lease[T]:
        ledger, upkeep = self._ledger, self._upkeep

        if upkeep.state is not _OPEN or get_running_loop() is not upkeep.loop:
            raise upkeep.refusal()

        if upkeep.failure is not None and not ledger.serving:
            raise upkeep.unavailable()

        waiter: Waiter[T] = Waiter(loop=upkeep.loop)
        waiter.since = now
        waiter.timeout = timeout
        ledger.waiters.append(waiter)

        if now + timeout < upkeep.alarm_at:
            upkeep.expect(waiter)

        if len(ledger.leased) < ledger.max_size:
            upkeep.pump()

        try:
            slot = await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._take_back(waiter.result(), used=False)  # the hand-over and the cancellation crossed
            else:
                ledger.forget(waiter)

            raise

        waited = slot.taken_at - now
        self._waits.counts[int(waited * 1e6).bit_length()] += 1
        self._waits.total += waited
        slot.holder = task

        if self._watched or slot.taken_at >= self._low_water_next:
            self._look_at(slot)

        return Lease(self, slot)

    def _take_back(self, slot: Slot[T], discard: bool = False, used: bool = True) -> None:  # noqa: FBT001, FBT002 - hot
        """Book a connection back from its holder, and decide what becomes of it."""
        ledger = self._ledger

        try:
            ledger.leased.remove(slot)
        except KeyError:
            return  # the pool was closed meanwhile, and has terminated it

        now = self._now()

        if used:
            self._leases.record(now - slot.taken_at)
            slot.holder = None

            if self._watched:
                slot.stack = None
                self._upkeep.hook(self._hooks.on_release, slot.conn)

        if discard or not self._is_alive(slot.conn):
            self._upkeep.terminate(slot)
        elif now >= slot.expires_at or slot.generation != ledger.generation:
            self._upkeep.retire(slot)
        elif not self._is_clean(slot.conn):
            self._upkeep.cleanse(slot)
        else:
            self._upkeep.offer(slot, now)

    def _abandoned(self, slot: Slot[T]) -> None:
        """Warn about a lease that was dropped without a release, and take its connection back later."""
        if slot not in self._ledger.leased:
            return

        place = (
            "".join(slot.stack.format()) if slot.stack else "leak_threshold= records where it was acquired"
        )
        message = f"pool {self.name!r}: a connection was dropped without being released ({place})"

        if not self._upkeep.loop.is_closed():  # first, since the warning may be an error
            self._upkeep.loop.call_soon_threadsafe(lambda: self._take_back(slot, discard=True))

        warnings.warn(message, ResourceWarning, stacklevel=3)

    def _warn_low_water(self, now: float) -> None:
        if now < self._low_water_next:
            return

        self._low_water_next = now + _LOW_WATER_EVERY
        used, limit, waiting = len(self._ledger.leased), self._ledger.max_size, len(self._ledger.waiters)
        logger.warning(
            "pool %r runs low: %d of %d connections in use, %d waiting", self.name, used, limit, waiting
        )


class _LeaseBlock(Generic[T]):
    """Holds a lease for the length of an ``async with`` block."""

    __slots__ = ("_lease", "_pool", "_timeout")

    def __init__(self, pool: Pool[T], timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout
        self._lease: Lease[T] | None = None

    async def __aenter__(self) -> T:
        self._lease = await self._pool.acquire(timeout=self._timeout)
        return self._lease.connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lease, self._lease = self._lease, None

        if lease is not None:
            self._pool.release(lease)
