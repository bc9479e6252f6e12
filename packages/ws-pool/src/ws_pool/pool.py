"""The generic pool: connections of any kind, lent one at a time.

`Pool` needs a `Connector`, which opens, checks and closes connections; the SQL and Redis pools of
this distribution are built on it. All I/O of the pool (connect, ping, reset, close) runs in tasks
that the pool owns. A task that asks for a connection only ever waits for a future, so it can be
cancelled at any moment without a connection being lost, and it takes whichever comes first: one
that is returned, one that is verified, or a new one.

This module knows no protocol and no driver.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import sys
import traceback
import warnings
from asyncio import current_task, get_running_loop
from collections.abc import Callable, Coroutine
from contextvars import Context
from enum import Enum, auto
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from ws_core.component import Health
from ws_pool import _fork
from ws_pool._ledger import Job, Ledger, Slot, Waiter
from ws_pool._statistics import Histogram, HistogramBuilder, PoolStatistics
from ws_pool.errors import AcquireTimeout, ClosedError, NotReadyError, UnavailableError, UsageError

__all__ = ("Connector", "Lease", "Pool", "PoolStatistics")

logger = logging.getLogger("ws_pool")

T = TypeVar("T")

_QUICK_PROBE = 1.0  # seconds for a second attempt beside a patient one, while the server is down
_MAX_BACKOFF = 0.5  # seconds between attempts while the server is down: it is back within 2 s at most
_TICK = 1.0  # seconds between looks at idle and leased connections
_LOW_WATER_EVERY = 60.0  # seconds between two low-water warnings


class Connector(Protocol[T]):
    """
    How a pool deals with connections of one kind.

    ``str(connector)`` names the server in errors and must hold no secrets.
    """

    async def open(self) -> T:
        """Open a connection, ready for use; leave nothing behind when cancelled or failing."""
        ...

    def is_alive(self, conn: T) -> bool:
        """
        Tell without I/O whether a connection can be used.

        It must be False when the connection is known to be broken **and** when an exchange on it
        was cut short, so that a late reply can never reach another user.
        """
        ...

    def is_clean(self, conn: T) -> bool:
        """Tell without I/O whether the session is as new, so that `reset` may be skipped."""
        ...

    async def ping(self, conn: T) -> None:
        """Make sure that the server answers; raise when it does not."""

    async def reset(self, conn: T) -> None:
        """Make the session as new: no transaction, no session state. Raise when it cannot be done."""

    async def close(self, conn: T) -> None:
        """Close gracefully."""

    def terminate(self, conn: T) -> None:
        """Close at once, without I/O that could wait."""


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


class _State(Enum):
    NEW = auto()
    OPEN = auto()
    CLOSING = auto()
    CLOSED = auto()


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
        clock: Gives the time in seconds; the running loop's clock by default.

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
        clock: Callable[[], float] | None = None,
    ) -> None:
        _check_numbers(min_size=min_size, max_size=max_size, max_connecting=max_connecting)
        self.name = name
        self._connector = connector
        self._is_alive = connector.is_alive
        self._is_clean = connector.is_clean
        self._acquire_timeout = acquire_timeout
        self._connect_timeout = connect_timeout
        self._ping_after = ping_after
        self._ping_timeout = ping_timeout
        self._max_lifetime = max_lifetime
        self._max_idle = max_idle
        self._leak_threshold = leak_threshold
        self._on_open = on_open
        self._on_acquire = on_acquire
        self._on_release = on_release
        self._on_close = on_close
        self._clock = clock
        self._ledger: Ledger[T] = Ledger(min_size=min_size, max_size=max_size, max_connecting=max_connecting)
        self._state = _State.NEW
        self._loop: asyncio.AbstractEventLoop | None = None
        self._now: Callable[[], float] = _no_time
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._failure: BaseException | None = None
        self._backoff = 0.0
        self._no_wait = 0
        self._waits = HistogramBuilder()
        self._leases = HistogramBuilder()
        self._low_water_at = -_LOW_WATER_EVERY
        self._low_water = max_size - (max_size - 1) // 3
        self._fork = 0
        self._drained: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        ledger = self._ledger
        state = self._state.name.lower()
        return f"<Pool {self.name!r} of {self._connector} {state}: {len(ledger.leased)} leased of {ledger.max_size}>"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        if self._state is _State.OPEN:
            message = f"pool {self.name!r} was not closed: use `async with` or await its close()"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    @property
    def connector(self) -> Connector[T]:
        """What opens and closes the connections."""
        return self._connector

    @property
    def ready(self) -> bool:
        """Whether connections can be acquired."""
        return self._state is _State.OPEN

    async def start(self) -> None:
        """
        Start in the running loop; with a ``min_size`` the server must answer.

        Raises:
            UnavailableError: The server cannot be reached; nothing is left behind.
            UsageError: The pool was started before.
        """
        if self._state is not _State.NEW:
            message = f"pool {self.name!r} was started before: make a new one"
            raise UsageError(message, pool=self.name)

        self._loop = asyncio.get_running_loop()
        self._now = self._clock or self._loop.time
        self._fork = _fork.watch()
        self._state = _State.OPEN
        self._timer("tick", _TICK, self._tick)

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
        if (
            self._state is not _State.OPEN
            or get_running_loop() is not self._loop
            or self._fork != _fork.generation
        ):
            raise self._refusal()

        ledger = self._ledger
        now = self._now()

        if ledger.idle and not ledger.waiters:
            slot = ledger.idle.pop()

            if now < slot.check_at and self._is_alive(slot.conn):
                self._no_wait += 1
                ledger.leased.add(slot)
                slot.taken_at = now
                return self._lend(slot, now)

            ledger.idle.append(slot)

        return await self._wait(now, self._acquire_timeout if timeout is None else timeout)

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

        if slot is None or lease._pool is not self:  # noqa: SLF001
            message = f"pool {self.name!r}: this connection was released before, or is not the pool's own"
            raise UsageError(message, pool=self.name)

        lease._slot = None  # noqa: SLF001
        self._take_back(slot, discard=discard)

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
        ledger = self._ledger
        ledger.generation += 1

        for slot in ledger.overdue(self._now(), self._max_idle):
            self._spawn(self._close_slot(slot))

        self._pump()

    async def health(self, *, timeout: float = 5.0) -> Health:  # noqa: ASYNC109 - part of the answer
        """
        Ask the server over a connection of the pool.

        Args:
            timeout: Seconds; a server that does not answer in time is not healthy.

        Returns:
            Whether it answers, with the time that took.
        """
        if self._state is not _State.OPEN:
            return Health(ok=False, detail=f"pool {self.name!r} is {self._state.name.lower()}")

        start = self._now()

        try:
            async with asyncio.timeout(timeout), self.lease(timeout=timeout) as conn:
                await self._connector.ping(conn)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            return Health(ok=False, detail=_say(error), latency=self._now() - start)

        return Health(ok=True, latency=self._now() - start)

    async def close(self, *, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - leases get time to drain
        """
        Refuse new acquires, wait for leases to come back, close everything.

        May be called again; when cancelled, it closes at once.

        Args:
            timeout: Seconds for leases to come back; those left are terminated, and a warning names
                their holders.
        """
        if self._state in {_State.NEW, _State.CLOSED}:
            self._state = _State.CLOSED
            return

        if get_running_loop() is not self._loop:
            raise self._refusal()

        if self._closed is not None:
            await asyncio.shield(self._closed)
            return

        self._state = _State.CLOSING
        self._closed = self._loop.create_future()

        try:
            await self._drain(timeout)
        finally:
            left = list(self._tasks)
            self._finish()
            self._closed.set_result(None)

        await asyncio.gather(*left, return_exceptions=True)

    def statistics(self) -> PoolStatistics:
        """Give a frozen snapshot of the pool."""
        ledger = self._ledger
        waits = list(self._waits.counts)
        waits[0] += self._no_wait
        return PoolStatistics(
            name=self.name,
            min_size=ledger.min_size,
            max_size=ledger.max_size,
            size=ledger.size,
            idle=len(ledger.idle),
            leased=len(ledger.leased),
            connecting=ledger.connecting,
            waiting=len(ledger.waiters),
            opened=ledger.totals.opened,
            closed=ledger.totals.closed,
            timeouts=ledger.totals.timeouts,
            failures=ledger.totals.failures,
            wait_time=Histogram(tuple(waits), self._waits.total),
            lease_time=self._leases.snapshot(),
            down="" if self._failure is None else _say(self._failure),
        )

    # -- lending ---------------------------------------------------------------------------------

    def _lend(self, slot: Slot[T], now: float) -> Lease[T]:
        slot.holder = current_task()

        if len(self._ledger.leased) >= self._low_water and now - self._low_water_at >= _LOW_WATER_EVERY:
            self._warn_low_water(now)

        if self._leak_threshold is not None:
            slot.warned = False
            frames = traceback.walk_stack(sys._getframe(1))  # noqa: SLF001 - the cheap way to a stack
            slot.stack = traceback.StackSummary.extract(frames, limit=16, lookup_lines=False)

        if self._on_acquire is not None:
            self._hook(self._on_acquire, slot.conn)

        return Lease(self, slot)

    async def _wait(self, now: float, timeout: float) -> Lease[T]:  # noqa: ASYNC109 - see acquire
        ledger = self._ledger

        if self._failure is not None and not ledger.serving:
            raise self._unavailable()

        assert self._loop is not None
        waiter: Waiter[T] = Waiter(self._loop.create_future(), now)
        ledger.waiters[waiter] = None
        timer = self._loop.call_later(timeout, self._time_out, waiter, timeout)
        self._pump()

        try:
            slot = await waiter.future
        except BaseException:
            future = waiter.future

            if future.done() and not future.cancelled() and future.exception() is None:
                self._take_back(future.result(), used=False)  # the hand-over and the cancellation crossed
            else:
                ledger.waiters.pop(waiter, None)

            raise
        finally:
            timer.cancel()

        self._waits.record(slot.taken_at - now)
        return self._lend(slot, slot.taken_at)

    def _time_out(self, waiter: Waiter[T], timeout: float) -> None:
        if waiter.future.done():
            return

        ledger = self._ledger
        waiting = len(ledger.waiters)
        ledger.waiters.pop(waiter, None)
        ledger.totals.timeouts += 1
        holders = self._holders()
        parts = [
            f"pool {self.name!r}: no connection was free within {timeout:g} s",
            f"size {ledger.size} of {ledger.max_size}, {waiting} waiting",
        ]

        if self._failure is not None:
            parts.append(f"the last connect failed: {_say(self._failure)}")

        if holders:
            parts.append("longest holders: " + ", ".join(holders))

        message = f"{parts[0]} ({'; '.join(parts[1:])})"
        error = AcquireTimeout(
            message,
            pool=self.name,
            size=ledger.size,
            max_size=ledger.max_size,
            waiting=waiting,
            holders=holders,
        )
        waiter.future.set_exception(error)

    def _take_back(self, slot: Slot[T], *, discard: bool = False, used: bool = True) -> None:
        """Book a connection back from its holder, and decide what becomes of it."""
        ledger = self._ledger

        if slot not in ledger.leased:
            return  # the pool was closed and terminated it

        now = self._now()
        conn = slot.conn

        if used:
            self._leases.record(now - slot.taken_at)
            slot.holder = slot.stack = None

            if self._on_release is not None:
                self._hook(self._on_release, conn)

        if discard or not self._is_alive(conn):
            ledger.leased.discard(slot)
            self._terminate(slot)
        elif slot.generation != ledger.generation or now >= slot.expires_at or self._state is not _State.OPEN:
            ledger.leased.discard(slot)
            ledger.closing += 1
            self._spawn(self._close_slot(slot))
        elif not self._is_clean(conn):
            ledger.leased.discard(slot)
            ledger.resetting += 1
            self._spawn(self._reset_slot(slot))
        elif ledger.waiters:
            ledger.leased.discard(slot)
            self._offer(slot, now)
        else:
            ledger.leased.discard(slot)
            slot.idle_since = now
            check_at = now + self._ping_after
            slot.check_at = check_at if check_at < slot.expires_at else slot.expires_at
            ledger.idle.append(slot)

    def _offer(self, slot: Slot[T], now: float) -> None:
        """Hand a connection in order to the head of the queue, or let it rest."""
        ledger = self._ledger
        waiter = ledger.head()

        if waiter is None:
            ledger.rest(slot, now, self._ping_after)
            return

        ledger.leased.add(slot)
        slot.taken_at = now
        slot.holder = None
        waiter.future.set_result(slot)

    def _abandoned(self, slot: Slot[T]) -> None:
        """Warn about a lease that was dropped without a release; take the connection out, without I/O here."""
        if slot not in self._ledger.leased:
            return

        place = (
            "".join(slot.stack.format()) if slot.stack else "set leak_threshold to see where it was acquired"
        )
        message = f"pool {self.name!r}: a connection was dropped without being released ({place})"
        warnings.warn(message, ResourceWarning, stacklevel=3)

        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._forget, slot)

    def _forget(self, slot: Slot[T]) -> None:
        self._take_back(slot, discard=True)

    # -- the pool's own I/O ----------------------------------------------------------------------

    def _pump(self) -> None:
        """Begin whatever the ledger finds to be done."""
        if self._state is not _State.OPEN:
            self._check_drained()
            return

        ledger = self._ledger

        while job := ledger.next_job(self._now(), may_connect=self._failure is None):
            match job:
                case Job.CONNECT, _:
                    self._spawn(self._open_slot(self._connect_timeout))
                case Job.VERIFY, slot if slot is not None:
                    self._spawn(self._verify_slot(slot))
                case _, slot if slot is not None:
                    self._spawn(self._close_slot(slot))

        if self._failure is not None and ledger.waiters and not ledger.serving:
            while waiter := ledger.head():
                waiter.future.set_exception(self._unavailable())

    async def _open_slot(self, timeout: float) -> None:  # noqa: ASYNC109 - it differs from attempt to attempt
        ledger = self._ledger
        generation = ledger.generation
        conn: T | None = None

        try:
            async with asyncio.timeout(timeout):
                conn = await self._connector.open()
        except Exception as error:  # noqa: BLE001 - whatever it is, the waiters shall see it
            self._connect_failed(error, timeout)
            return
        finally:
            ledger.connecting -= 1

            if conn is None:
                self._pump()

        ledger.totals.opened += 1
        now = self._now()
        lifetime = self._max_lifetime
        expires = float("inf") if lifetime is None else now + lifetime * (1 - random.uniform(0.025, 0.1))
        slot = Slot(conn, generation, expires)
        ledger.resetting += 1

        try:
            if self._on_open is not None:
                answer = self._hook(self._on_open, conn)

                if inspect.isawaitable(answer):
                    await _logged(answer)
        except BaseException:
            ledger.resetting -= 1
            self._terminate(slot)
            raise

        ledger.resetting -= 1

        if self._failure is not None:
            logger.info("pool %r: %s answers again", self.name, self._connector)
            self._failure = None
            self._backoff = 0.0

        self._place(slot)

    async def _verify_slot(self, slot: Slot[T]) -> None:
        ledger = self._ledger
        ok = False

        try:
            if self._is_alive(slot.conn):
                async with asyncio.timeout(self._ping_timeout):
                    await self._connector.ping(slot.conn)

                ok = self._is_alive(slot.conn)
        except Exception as error:  # noqa: BLE001 - dead is dead
            logger.debug("pool %r: an idle connection is dead: %s", self.name, _say(error))
        finally:
            ledger.verifying -= 1

            if not ok:
                ledger.suspect()
                self._terminate(slot)

        if ok:
            self._place(slot)

    async def _reset_slot(self, slot: Slot[T]) -> None:
        ledger = self._ledger
        ok = False

        try:
            async with asyncio.timeout(self._ping_timeout):
                await self._connector.reset(slot.conn)

            ok = self._is_alive(slot.conn)
        except Exception as error:  # noqa: BLE001 - a session that cannot be reset is not used again
            logger.debug("pool %r: a connection could not be reset: %s", self.name, _say(error))
        finally:
            ledger.resetting -= 1

            if not ok:
                self._terminate(slot)

        if ok:
            self._place(slot)

    async def _close_slot(self, slot: Slot[T]) -> None:
        ledger = self._ledger
        closed = False

        try:
            if self._on_close is not None:
                self._hook(self._on_close, slot.conn)

            async with asyncio.timeout(self._ping_timeout):
                await self._connector.close(slot.conn)

            closed = True
        except Exception as error:  # noqa: BLE001 - it is closed the hard way
            logger.debug("pool %r: a connection did not close well: %s", self.name, _say(error))
        finally:
            ledger.closing -= 1

            if closed:
                ledger.totals.closed += 1
                self._pump()
            else:
                self._terminate(slot, told=True)

    def _place(self, slot: Slot[T]) -> None:
        """Put a connection that is in order where it is needed, unless its time is over."""
        now = self._now()

        if self._state is not _State.OPEN or self._ledger.outdated(slot, now):
            self._ledger.closing += 1
            self._spawn(self._close_slot(slot))
        else:
            self._offer(slot, now)

        self._pump()

    def _terminate(self, slot: Slot[T], *, told: bool = False) -> None:
        if self._on_close is not None and not told:
            self._hook(self._on_close, slot.conn)

        self._ledger.totals.closed += 1

        try:
            self._connector.terminate(slot.conn)
        except Exception:
            logger.exception("pool %r: a connection could not be terminated", self.name)

        self._pump()

    # -- a server that is down -------------------------------------------------------------------

    def _connect_failed(self, error: Exception, timeout: float) -> None:
        if isinstance(error, TimeoutError) and not str(error):
            error = TimeoutError(f"no answer within {timeout:g} s")

        self._ledger.totals.failures += 1

        if self._failure is None:
            logger.warning("pool %r: cannot connect to %s: %s", self.name, self._connector, _say(error))

        self._failure = error
        self._backoff = min(_MAX_BACKOFF, self._backoff * 2 or 0.05)

        if self._state is _State.OPEN and "probe" not in self._timers:
            self._timer("probe", self._backoff * random.uniform(0.5, 1.0), self._probe)

    def _probe(self) -> None:
        """
        Try to reach a server that is down.

        Beside a patient attempt, which a slow server needs, go quick ones: an attempt that began
        while packets were lost may hang long after the server is back.
        """
        ledger = self._ledger

        if self._state is not _State.OPEN or self._failure is None:
            return

        if ledger.connecting < max(2, ledger.max_connecting) and ledger.size < ledger.max_size:
            quick = ledger.connecting > 0 or ledger.max_size == 1
            ledger.connecting += 1
            self._spawn(
                self._open_slot(min(_QUICK_PROBE, self._connect_timeout) if quick else self._connect_timeout)
            )

        self._timer("probe", _MAX_BACKOFF, self._probe)

    def _unavailable(self) -> UnavailableError:
        failure = self._failure
        message = f"pool {self.name!r} cannot connect to {self._connector}: {'' if failure is None else _say(failure)}"
        error = UnavailableError(message, pool=self.name)
        error.__cause__ = failure
        return error

    # -- housekeeping ----------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self._now()
        ledger = self._ledger
        dead = [slot for slot in ledger.idle if not self._is_alive(slot.conn)]

        for slot in dead:
            ledger.idle.remove(slot)
            self._terminate(slot)

        for slot in ledger.overdue(now, self._max_idle):
            self._spawn(self._close_slot(slot))

        if self._leak_threshold is not None:
            self._warn_leaks(now, self._leak_threshold)

        self._pump()
        self._timer("tick", _TICK, self._tick)

    def _warn_leaks(self, now: float, threshold: float) -> None:
        for slot in self._ledger.leased:
            if not slot.warned and now - slot.taken_at >= threshold:
                slot.warned = True
                place = "".join(slot.stack.format()) if slot.stack else ""
                held = now - slot.taken_at
                logger.warning(
                    "pool %r: a connection is held for %.1f s, acquired at\n%s", self.name, held, place
                )

    def _warn_low_water(self, now: float) -> None:
        self._low_water_at = now
        ledger = self._ledger
        used, limit, waiting = len(ledger.leased), ledger.max_size, len(ledger.waiters)
        logger.warning(
            "pool %r runs low: %d of %d connections in use, %d waiting", self.name, used, limit, waiting
        )

    def _holders(self, count: int = 3) -> tuple[str, ...]:
        now = self._now()
        oldest = sorted(self._ledger.leased, key=lambda slot: slot.taken_at)[:count]
        return tuple(f"{_name(slot.holder)} for {now - slot.taken_at:.1f} s" for slot in oldest)

    def _hook(self, hook: Callable[[T], object], conn: T) -> object:
        try:
            return hook(conn)
        except Exception:
            logger.exception("pool %r: the hook %r failed", self.name, hook)
            return None

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        assert self._loop is not None
        task = self._loop.create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _timer(self, key: str, delay: float, action: Callable[[], None]) -> None:
        assert self._loop is not None

        def run() -> None:
            del self._timers[key]
            action()

        self._timers[key] = self._loop.call_later(delay, run)

    def _refusal(self) -> UsageError:
        """Say why the pool cannot be used here and now."""
        if self._state is _State.NEW:
            message = f"pool {self.name!r} is not started: use `async with` or await its start()"
            return NotReadyError(message, pool=self.name)

        if self._state is not _State.OPEN:
            return ClosedError(f"pool {self.name!r} is closed", pool=self.name)

        if self._fork != _fork.generation:
            message = f"pool {self.name!r} was started before this process forked: start one in each process"
            return UsageError(message, pool=self.name)

        message = f"pool {self.name!r} belongs to another event loop: use it where it was started"
        return UsageError(message, pool=self.name)

    # -- the end ---------------------------------------------------------------------------------

    async def _drain(self, timeout: float) -> None:  # noqa: ASYNC109 - see close
        ledger = self._ledger

        for timer in self._timers.values():
            timer.cancel()

        self._timers.clear()

        while waiter := ledger.head():
            waiter.future.set_exception(self._refusal())

        while ledger.idle:
            ledger.closing += 1
            self._spawn(self._close_slot(ledger.idle.pop()))

        if not ledger.size:
            return

        assert self._loop is not None
        self._drained = self._loop.create_future()

        try:
            async with asyncio.timeout(timeout):
                await self._drained
        except TimeoutError:
            holders = ", ".join(self._holders(ledger.max_size)) or "none"
            logger.warning("pool %r: closed with connections still in use, held by: %s", self.name, holders)

    def _check_drained(self) -> None:
        if self._drained is not None and not self._drained.done() and not self._ledger.size:
            self._drained.set_result(None)

    def _finish(self) -> None:
        """Terminate what is left, without waiting for anything."""
        self._state = _State.CLOSED
        ledger = self._ledger

        for slot in [*ledger.leased, *ledger.idle]:
            self._terminate(slot)

        ledger.leased.clear()
        ledger.idle.clear()

        for task in list(self._tasks):
            task.cancel()


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


def _check_numbers(*, min_size: int, max_size: int, max_connecting: int) -> None:
    if not 0 <= min_size <= max_size or max_size < 1 or max_connecting < 1:
        message = (
            "a pool needs 0 <= min_size <= max_size, max_size >= 1 and max_connecting >= 1, "
            f"not min_size={min_size}, max_size={max_size}, max_connecting={max_connecting}"
        )
        raise UsageError(message)


def _no_time() -> float:
    return 0.0


def _name(task: asyncio.Task[object] | None) -> str:
    return "a task" if task is None else f"task {task.get_name()!r}"


def _say(error: BaseException) -> str:
    return str(error) or type(error).__name__


async def _logged(answer: object) -> None:
    try:
        await answer  # type: ignore[misc] # inspect.isawaitable said so
    except Exception:
        logger.exception("an on_open hook failed")
