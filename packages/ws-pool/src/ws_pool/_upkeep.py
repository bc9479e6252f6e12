"""The I/O of a pool: it opens, verifies, resets and closes connections in tasks of its own.

The ledger decides, `Upkeep` does. No task of a user ever runs in here, so that no user's
cancellation can interrupt any of it. The other half of the pool, `ws_pool.pool`, lends and takes
back, and does no I/O at all.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import time
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Generic, TypeVar, cast

from ws_pool._connector import Connector
from ws_pool._ledger import Job, Ledger, Slot, Waiter
from ws_pool._outage import MIN_BACKOFF, QUICK_PROBE, next_pause, refusal, say, too_late
from ws_pool._statistics import HistogramBuilder
from ws_pool._terms import Hooks, Options, State
from ws_pool.errors import UnavailableError, UsageError

__all__ = ("Upkeep",)

logger = logging.getLogger("ws_pool")

T = TypeVar("T")

_TICK = 1.0  # seconds between looks at idle and leased connections


class Upkeep(Generic[T]):
    """
    Keeps a pool's connections.

    Args:
        name: The pool's name.
        connector: Opens and closes connections.
        ledger: The books.
        options: The durations.
        hooks: What to call.
    """

    def __init__(
        self, name: str, connector: Connector[T], ledger: Ledger[T], options: Options, hooks: Hooks[T]
    ) -> None:
        self.name = name
        self.state = State.NEW
        self.forked = False
        self.failure: BaseException | None = None
        self.loop = cast("asyncio.AbstractEventLoop", None)  # set by start, before anything else runs
        self.now: Callable[[], float] = float
        self._connector = connector
        self._ledger = ledger
        self._options = options
        self._hooks = hooks
        self._tasks: set[asyncio.Task[None]] = set()
        self._connects: set[asyncio.Task[None]] = set()  # those of them that open a connection
        self._in_hand: dict[Slot[T], object] = {}  # slots whose task has not begun yet
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._backoff = MIN_BACKOFF
        self.creates = HistogramBuilder()
        self._drained: asyncio.Future[None] | None = None
        self.alarm_at = float("inf")

    def start(self, clock: Callable[[], float] | None) -> None:
        """
        Begin to keep connections, in the running loop.

        Args:
            clock: Gives the time; `time.monotonic` by default.
        """
        self.loop = asyncio.get_running_loop()
        self.now = clock or time.monotonic
        self.state = State.OPEN
        self._timer("tick", _TICK, self._tick)

    def usable_here(self) -> bool:
        """Tell whether the pool is open, in its own loop and its own process."""
        return self.state is State.OPEN and not self.forked and asyncio.get_running_loop() is self.loop

    def refusal(self) -> UsageError:
        """Say why the pool cannot be used here and now."""
        return refusal(self.name, self.state, forked=self.forked)

    def unavailable(self) -> UnavailableError:
        """Say that the server is down, and why; a new error for each who is told."""
        reason = "" if self.failure is None else say(self.failure)
        error = UnavailableError(
            f"pool {self.name!r} cannot connect to {self._connector}: {reason}", pool=self.name
        )
        error.__cause__ = self.failure
        return error

    def expect(self, waiter: Waiter[T]) -> None:
        """
        Have a waiter told when its time is over.

        One timer serves the whole queue: it is set for the waiter whose time ends first.

        Args:
            waiter: It is in the queue.
        """
        deadline = waiter.since + waiter.timeout

        if deadline < self.alarm_at:
            self._set_alarm(deadline)

    def pump(self) -> None:
        """Begin whatever the ledger finds to be done."""
        ledger = self._ledger

        if self.state is not State.OPEN:
            if self._drained is not None and not self._drained.done() and not ledger.size:
                self._drained.set_result(None)

            return

        now = self.now()

        while work := ledger.next_job(now, may_connect=self.failure is None):
            job, slot = work

            if job is Job.CONNECT:
                self._spawn(self._open(self._options.connect_timeout))
            elif job is Job.VERIFY:
                self._spawn(self._verify(cast("Slot[T]", slot)), slot)
            else:
                self._spawn(self._close(cast("Slot[T]", slot)), slot)

        if self.failure is not None and ledger.waiters and not ledger.serving:
            while waiter := ledger.head():
                waiter.set_exception(self.unavailable())

    def offer(self, slot: Slot[T], now: float) -> None:
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

    def retire(self, slot: Slot[T]) -> None:
        """
        Close a connection gracefully, in the background.

        Args:
            slot: The connection; it has no place in the books at the moment.
        """
        if self.state is State.CLOSED:
            self.terminate(slot)
            return

        self._ledger.closing += 1
        self._spawn(self._close(slot), slot)

    def cleanse(self, slot: Slot[T]) -> None:
        """
        Reset a connection's session in the background, then put it where it is needed.

        Args:
            slot: The connection; it has no place in the books at the moment.
        """
        self._ledger.resetting += 1
        self._spawn(self._reset(slot), slot)

    def terminate(self, slot: Slot[T], *, told: bool = False) -> None:
        """
        Close a connection at once.

        Args:
            slot: The connection; it has no place in the books at the moment.
            told: Whether the hook was called already.
        """
        if not told:
            self.hook(self._hooks.on_close, slot.conn)

        self._ledger.totals.closed += 1

        try:
            self._connector.terminate(slot.conn)
        except Exception:
            logger.exception("pool %r: a connection could not be terminated", self.name)

        self.pump()

    def expire(self) -> None:
        """Replace all connections: idle ones now, leased ones when they come back."""
        self._ledger.generation += 1
        self._close_overdue(self.now())
        self.pump()

    def hook(self, hook: Callable[[T], object] | None, conn: T) -> object:
        """
        Call a hook, if there is one; when it raises, that is logged and nothing more.

        Args:
            hook: The hook.
            conn: The connection.

        Returns:
            What the hook returned.
        """
        if hook is None:
            return None

        try:
            return hook(conn)
        except Exception:
            logger.exception("pool %r: the hook %r failed", self.name, hook)
            return None

    def holders(self, count: int = 3) -> tuple[str, ...]:
        """
        Name the tasks that hold connections, the longest first.

        Args:
            count: How many at most.
        """
        now = self.now()
        oldest = sorted(self._ledger.leased, key=lambda slot: slot.taken_at)[:count]
        return tuple(
            f"task {slot.holder.get_name() if slot.holder else '?'!r} for {now - slot.taken_at:.1f} s"
            for slot in oldest
        )

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - leases get time to come back
        """
        Refuse all that is new, and wait until every connection is closed.

        Args:
            timeout: Seconds; a warning then names the holders of what is left.
        """
        self.state = State.CLOSING
        ledger = self._ledger
        ledger.generation += 1  # what comes back is closed

        for timer in self._timers.values():
            timer.cancel()

        self._timers.clear()

        while waiter := ledger.head():
            waiter.set_exception(self.refusal())

        for connect in self._connects:  # nobody is there any more who could want it
            self.loop.call_soon(connect.cancel)  # not at once: each has begun by then, and cleans up

        while ledger.idle:
            self.retire(ledger.idle.pop())

        if not ledger.size:
            return

        self._drained = self.loop.create_future()

        try:
            async with asyncio.timeout(timeout):
                await self._drained
        except TimeoutError:
            if names := ", ".join(self.holders(ledger.max_size)):
                logger.warning("pool %r: closed with connections still in use, held by %s", self.name, names)

    def finish(self) -> list[asyncio.Task[None]]:
        """
        Terminate what is left, at once.

        Returns:
            The tasks that were cancelled; they end within a few turns of the loop.
        """
        self.state = State.CLOSED
        ledger = self._ledger
        left = [*ledger.leased, *ledger.idle]
        ledger.leased.clear()
        ledger.idle.clear()

        for slot in left:
            self.terminate(slot)

        tasks = list(self._tasks)

        if not self.loop.is_closed():
            for task in tasks:
                self.loop.call_soon(task.cancel)  # not at once: each has begun by then, and cleans up

        return tasks

    # -- tasks -----------------------------------------------------------------------------------

    async def _open(self, timeout: float) -> None:  # noqa: ASYNC109 - it differs from attempt to attempt
        ledger = self._ledger
        generation = ledger.generation
        slot: Slot[T] | None = None
        good = False
        start = self.now()

        try:
            async with asyncio.timeout(timeout):
                conn = await self._connector.open()
                self.creates.record(self.now() - start)
                slot = Slot(conn, generation, self._end_of_life())
                ledger.totals.opened += 1
                answer = self.hook(self._hooks.on_open, conn)

                if inspect.isawaitable(answer):
                    await self._logged(answer)

            good = True
        except Exception as error:  # noqa: BLE001 - whatever it is, the waiters shall see it
            self._connect_failed(error, timeout)
        finally:
            ledger.connecting -= 1

            if not good:
                self.terminate(slot) if slot is not None else self.pump()

        if good and slot is not None:
            self._connected()
            self._place(slot)

    async def _verify(self, slot: Slot[T], *, doubted: bool = False) -> None:
        self._in_hand.pop(slot, None)
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
        if self.state is State.OPEN:
            for slot in self._ledger.doubt():
                self._spawn(self._verify(slot, doubted=True), slot)

    async def _reset(self, slot: Slot[T]) -> None:
        self._in_hand.pop(slot, None)
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

    async def _close(self, slot: Slot[T]) -> None:
        self._in_hand.pop(slot, None)
        ledger = self._ledger
        closed = False
        self.hook(self._hooks.on_close, slot.conn)

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

    def _place(self, slot: Slot[T]) -> None:
        """Put a connection that is in order where it is needed, unless its time is over."""
        now = self.now()

        if self.state is not State.OPEN or self._ledger.outdated(slot, now):
            self.retire(slot)
        else:
            self.offer(slot, now)

        self.pump()

    async def _logged(self, answer: object) -> None:
        try:
            await answer  # type: ignore[misc] # inspect.isawaitable said so
        except Exception:
            logger.exception("pool %r: the hook on_open failed", self.name)

    def _end_of_life(self) -> float:
        lifetime = self._options.max_lifetime
        return float("inf") if lifetime is None else self.now() + lifetime * (1 - random.uniform(0.025, 0.1))

    # -- waiters whose time is over ---------------------------------------------------------------

    def _set_alarm(self, deadline: float) -> None:
        if "alarm" in self._timers:
            self._timers.pop("alarm").cancel()

        self.alarm_at = deadline
        self._timer("alarm", max(0.0, deadline - self.now()), self._alarm)

    def _alarm(self) -> None:
        self.alarm_at = float("inf")
        ledger = self._ledger
        waiting = len(ledger.waiters)

        for waiter in ledger.late(self.now()):
            ledger.totals.timeouts += 1
            waiter.set_exception(self._too_late(waiter, waiting))

        if ledger.waiters:
            self._set_alarm(min(waiter.since + waiter.timeout for waiter in ledger.waiters))

    def _too_late(self, waiter: Waiter[T], waiting: int) -> TimeoutError:
        """Say that there was no connection in time."""
        ledger = self._ledger
        return too_late(
            self.name,
            seconds=waiter.timeout,
            size=ledger.size,
            max_size=ledger.max_size,
            waiting=waiting,
            holders=self.holders(),
            failure=self.failure,
        )

    # -- a server that is down -------------------------------------------------------------------

    def _connect_failed(self, error: Exception, timeout: float) -> None:
        if isinstance(error, TimeoutError) and not str(error):
            error = TimeoutError(f"no answer within {timeout:g} s")

        self._ledger.totals.failures += 1

        if self.failure is None:
            logger.warning("pool %r: cannot connect to %s: %s", self.name, self._connector, say(error))

        self.failure = error

        if self.state is State.OPEN and "probe" not in self._timers:
            self._backoff = MIN_BACKOFF
            self._timer("probe", self._backoff * random.uniform(0.5, 1.0), self._probe)

    def _connected(self) -> None:
        if self.failure is not None:
            logger.info("pool %r: %s answers again", self.name, self._connector)

        self.failure = None

    def _probe(self) -> None:
        """
        Try to reach a server that is down.

        Beside a patient attempt, which a slow server needs, go quick ones: an attempt that began
        while packets were lost may hang long after the server is back. Where only one attempt may
        be under way, it is a quick one.
        """
        ledger = self._ledger

        if self.failure is None:
            return

        if ledger.connecting < ledger.max_connecting and ledger.size < ledger.max_size:
            patient, quick = self._options.connect_timeout, min(QUICK_PROBE, self._options.connect_timeout)
            hurry = ledger.connecting > 0 or ledger.max_size == 1 or ledger.max_connecting == 1
            ledger.connecting += 1
            self._spawn(self._open(quick if hurry else patient))

        is_refusal = self._options.is_refusal
        refused = is_refusal is not None and is_refusal(self.failure)
        self._backoff = next_pause(self._backoff, refused=refused)
        self._timer("probe", self._backoff, self._probe)

    # -- housekeeping ----------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self.now()
        ledger = self._ledger

        for slot in [slot for slot in ledger.idle if not self._connector.is_alive(slot.conn)]:
            ledger.idle.remove(slot)
            self.terminate(slot)

        self._close_overdue(now)
        self._warn_leaks(now)
        self.pump()
        self._timer("tick", _TICK, self._tick)

    def _close_overdue(self, now: float) -> None:
        for slot in self._ledger.overdue(now, self._options.max_idle):
            self._spawn(self._close(slot), slot)

    def _warn_leaks(self, now: float) -> None:
        threshold = self._options.leak_threshold

        if threshold is None:
            return

        for slot in self._ledger.leased:
            if not slot.warned and now - slot.taken_at >= threshold:
                slot.warned = True
                place = "".join(slot.stack.format()) if slot.stack else "(no stack)"
                held = now - slot.taken_at
                logger.warning(
                    "pool %r: a connection is held for %.1f s, acquired at\n%s", self.name, held, place
                )

    def _spawn(self, work: Coroutine[object, object, None], slot: Slot[T] | None = None) -> None:
        mark = object()

        if slot is not None:
            self._in_hand[slot] = mark  # before there is a task: an eager one begins at once

        task = self.loop.create_task(work, context=Context())
        self._tasks.add(task)

        if slot is None:
            self._connects.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._connects.discard(task)

            if slot is not None and self._in_hand.get(slot) is mark:  # cancelled before its first step
                del self._in_hand[slot]
                self.terminate(slot)

        task.add_done_callback(done)

    def _timer(self, key: str, delay: float, action: Callable[[], None]) -> None:
        def run() -> None:
            del self._timers[key]
            action()

        self._timers[key] = self.loop.call_later(delay, run)
