"""Tasks of asyncio, in the few words that locks need; ``sync._concurrency`` has the same words for threads.

Everything else in ``ws_redislock.sync`` is generated from the source beside this file. What runs
between two awaits is atomic for tasks, so that a `Mutex` does nothing here.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, ParamSpec, TypeAlias, TypeVar

import redis
import redis.asyncio

from ws_core.errors import UsageError

P = ParamSpec("P")
T = TypeVar("T")

Event: TypeAlias = asyncio.Event
Job: TypeAlias = "asyncio.Task[None]"
Loop: TypeAlias = asyncio.AbstractEventLoop
sleep = asyncio.sleep
timeout = asyncio.timeout

READ_SLICE = 5.0
"""Seconds that one read from a subscription may take: a cancel ends it earlier."""

NATIVE = "redis.asyncio.Redis"
"""The client that fits."""

FOREIGN = (redis.Redis, redis.RedisCluster)
"""The clients that do not."""

FOREIGN_REASON = "blocks the event loop: pass a redis.asyncio.Redis, or use ws_redislock.sync"

_logger = logging.getLogger("ws_redislock")


class Mutex:
    """Nothing: tasks change only at an await."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Signal:
    """A wake-up for one task; one that comes early is kept."""

    __slots__ = ("_future", "_set")

    def __init__(self) -> None:
        self._set = False
        self._future: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Wake the task up."""
        self._set = True

        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self, until: float | None) -> bool:
        """Wait for the signal until a time of the loop, or for ever, and take it; return whether it came."""
        if not self._set:
            loop = asyncio.get_running_loop()
            future = self._future = loop.create_future()
            timer = None if until is None else loop.call_at(until, _give_up, future)

            try:
                await future
            finally:
                self._future = None

                if timer is not None:
                    timer.cancel()

        came, self._set = self._set, False
        return came


def _give_up(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def current_loop() -> Loop:
    """Return the running event loop."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise UsageError(
            "a lock needs a running event loop: use ws_redislock.sync where there is none"
        ) from None


def check_loop(loop: Loop | None, what: str) -> None:
    """Refuse use from another event loop than that of the first use: it would hang there."""
    if asyncio.get_running_loop() is not loop:
        raise UsageError(f"{what} belongs to another event loop, where it was used first: make one per loop")


def is_closed(loop: Loop | None) -> bool:
    """Whether an event loop has ended, such as that of an earlier test; then its clients have too."""
    return loop is not None and loop.is_closed()


def current_task() -> asyncio.Task[Any] | None:  # Any: a task's result does not matter
    """Return the running task."""
    return asyncio.current_task()


def start(loop: Loop, work: Callable[P, Coroutine[Any, Any, None]], *args: P.args, **kwargs: P.kwargs) -> Job:
    """Run work in a task."""
    return loop.create_task(work(*args, **kwargs))


async def wait_jobs(jobs: Iterable[Job], within: float) -> None:
    """Wait until all jobs are done, for so many seconds at most; a cancel leaves them running."""
    if jobs := list(jobs):
        await asyncio.wait(jobs, timeout=within)


async def wait_event(event: Event, within: float) -> bool:
    """Wait for an event, for so many seconds at most; return whether it is set."""
    try:
        async with asyncio.timeout(within):
            await event.wait()
    except TimeoutError:
        pass

    return event.is_set()


async def gather(calls: Iterable[Callable[[], Coroutine[Any, Any, T]]]) -> list[T | BaseException]:
    """Make calls at the same time; return what each returned or raised, in their order."""
    return await asyncio.gather(*(call() for call in calls), return_exceptions=True)


def run_callback(
    spawn: Callable[..., object], function: Callable[[T], Awaitable[None] | None], argument: T
) -> None:
    """Call a user's function or coroutine function; what it raises is logged."""
    try:
        work = function(argument)
    except Exception:
        _logger.exception("callback %r failed", function)
        return

    if inspect.isawaitable(work):
        spawn(_await_logged, function, work)


async def _await_logged(function: object, work: Awaitable[None]) -> None:
    try:
        await work
    except Exception:
        _logger.exception("callback %r failed", function)


def client_from_url(url: str) -> Any:  # Any: untyped in the driver
    """Make a client."""
    return redis.asyncio.from_url(url)
