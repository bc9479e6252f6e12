"""Threads for plain functions, which do not keep the process from exiting.

Those of asyncio's executors and of anyio are waited for at the interpreter's end, however long the
function in them takes. Trio's are not, and are used as they are.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeAlias, TypeVar

import anyio
import anyio.to_thread
from anyio._core._eventloop import claim_worker_thread, get_async_backend, threadlocals
from anyio.lowlevel import checkpoint

from ws_tasks._event_loop import asyncio_loop

T = TypeVar("T")

_IDLE = 10.0  # seconds after which a thread that has nothing to do ends


class _Call(NamedTuple):
    function: Callable[[], Any]
    context: Context
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    scope: anyio.CancelScope
    backend: Any  # anyio's class for the loop, which is not public


_Inbox: TypeAlias = "SimpleQueue[_Call | None]"


class ThreadPool:
    """
    Runs plain functions in daemon threads, so many at once.

    It belongs to one event loop. ``anyio.from_thread`` works in the functions.
    """

    __slots__ = ("_generation", "_idle", "_limiter", "total")

    def __init__(self, total: int) -> None:
        self.total: int = total
        self._limiter: anyio.CapacityLimiter | None = None
        self._idle: deque[tuple[float, _Inbox]] = deque()
        self._generation = 0  # threads of an earlier one end when their function returns

    async def run(self, function: Callable[[], T]) -> T:
        """Run a function in a thread; cancelled, it returns at once and the function goes on."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(self.total)

        loop = asyncio_loop()

        if loop is None:
            return await anyio.to_thread.run_sync(function, limiter=self._limiter, abandon_on_cancel=True)

        await checkpoint()

        async with self._limiter:
            with anyio.CancelScope() as scope:
                future: asyncio.Future[T] = loop.create_future()
                call = _Call(function, copy_context(), loop, future, scope, get_async_backend())
                self._take().put(call)
                return await future

        raise AssertionError  # pragma: no cover - nobody cancels the scope

    def close(self) -> None:
        """End the threads that are idle, and the others when their functions return."""
        self._generation += 1

        while self._idle:
            self._idle.pop()[1].put(None)

    def _take(self) -> _Inbox:
        """Return the inbox of a thread that has nothing to do."""
        while len(self._idle) > 1 and self._idle[0][0] < time.monotonic() - _IDLE:
            self._idle.popleft()[1].put(None)

        if self._idle:
            return self._idle.pop()[1]

        inbox: _Inbox = SimpleQueue()
        arguments = (inbox, self._generation)
        threading.Thread(target=self._work, args=arguments, name="ws_tasks", daemon=True).start()
        return inbox

    def _work(self, inbox: _Inbox, generation: int) -> None:
        call = inbox.get()

        while call is not None:
            value, error = None, None

            with claim_worker_thread(call.backend, call.loop):
                threadlocals.current_cancel_scope = call.scope

                try:
                    value = call.context.run(call.function)
                except BaseException as raised:  # noqa: BLE001 - for the one that waits
                    error = raised
                finally:
                    del threadlocals.current_cancel_scope

            loop, read = call.loop, threading.Event()

            try:
                loop.call_soon_threadsafe(self._done, inbox, generation, call.future, value, error, read)
            except RuntimeError:
                return  # the loop is closed: nobody waits

            del call, value, error
            call = _next(inbox, loop, read)

    def _done(
        self,
        inbox: _Inbox,
        generation: int,
        future: asyncio.Future[Any],
        value: object,
        error: BaseException | None,
        read: threading.Event,
    ) -> None:
        """Hand over what a function has returned or raised, in the loop."""
        read.set()

        if generation == self._generation:
            self._idle.append((time.monotonic(), inbox))
        else:
            inbox.put(None)

        if future.done():
            return

        if error is None:
            future.set_result(value)
        elif isinstance(error, StopIteration):  # a future cannot have it
            future.set_exception(RuntimeError(f"the function raised {error!r}"))
        else:
            future.set_exception(error)


def _next(inbox: _Inbox, loop: asyncio.AbstractEventLoop, read: threading.Event) -> _Call | None:
    """Wait for the next call; None when there will be none."""
    while True:
        try:
            return inbox.get(timeout=None if read.is_set() else 1.0)
        except Empty:
            # A loop that was closed before it read the result sends nothing any more.
            if loop.is_closed():
                return None
