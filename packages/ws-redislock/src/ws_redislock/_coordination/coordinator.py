"""One coordinator per event loop and client: tokens, wake-ups and heartbeats for all its locks.

However many locks and waiting tasks there are, a coordinator has one subscription, and sends one
heartbeat per lock that somebody waits for. It lives as long as a lock or a task refers to it.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import os
import random
import secrets
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar

from ws_core.errors import UsageError
from ws_redislock._coordination.wakeups import WakeupSubscription
from ws_redislock._redis.keys import QueueKeys
from ws_redislock._redis.script_client import CommandClient, ScriptClient, check_flow
from ws_redislock._redis.scripts import load

__all__ = ("Coordinator", "Event", "Job", "Waiter", "coordinator_for")

P = ParamSpec("P")
T = TypeVar("T")
Event: TypeAlias = asyncio.Event
Job: TypeAlias = "asyncio.Task[None]"

_log = logging.getLogger("ws_redislock")

_coordinators: weakref.WeakValueDictionary[tuple[int, int, int], Coordinator] = weakref.WeakValueDictionary()


class Waiter:
    """One acquisition that may have to wait; a wake-up that comes early is kept."""

    __slots__ = ("_future", "_woken", "doubtful", "queue", "token")

    def __init__(self, token: str) -> None:
        self.token: str = token
        self.queue: QueueWatch | None = None
        self._woken = False
        self._future: asyncio.Future[None] | None = None
        self.doubtful: bool = False

    def doubt(self) -> None:
        """Take note that an ENTER was not answered: it may arrive whenever it likes."""
        self.doubtful = True

    def wake(self) -> None:
        """Let the waiting task look at the lock."""
        self._woken = True

        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self, until: float | None) -> bool:
        """
        Wait for a wake-up.

        Args:
            until: The loop's time at which to give up, or None.

        Returns:
            Whether there was a wake-up.
        """
        if not self._woken:
            loop = asyncio.get_running_loop()
            future = self._future = loop.create_future()
            timer = None if until is None else loop.call_at(until, _give_up, future)

            try:
                await future
            finally:
                self._future = None

                if timer is not None:
                    timer.cancel()

        woken, self._woken = self._woken, False
        return woken


def _give_up(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Watched(Protocol):
    """A holder that wants to know when its lock was taken away."""

    def look(self) -> None:
        """Check the lease now."""


class QueueWatch:
    """The local waiters of one lock, with the timer of their next heartbeat."""

    __slots__ = ("coordinator", "due", "spec", "timer", "waiters")

    def __init__(self, coordinator: Coordinator, spec: QueueKeys) -> None:
        self.coordinator: Coordinator = coordinator
        self.spec: QueueKeys = spec
        self.waiters: dict[str, Waiter] = {}
        self.due: float = 0.0
        self.timer: asyncio.TimerHandle | None = None

    def look_within(self, seconds: float) -> None:
        """Make the next heartbeat come after so many seconds, or after a third of its period."""
        period = self.spec.heartbeat / 3000
        seconds = min(period, max(0.0, seconds) + random.uniform(0.002, 0.02))
        self.stop()
        self.due = self.coordinator.loop.time() + seconds
        self.timer = self.coordinator.loop.call_at(self.due, self.coordinator.beat_soon, self)

    def stop(self) -> None:
        """Stop the timer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Coordinator:
    """
    The shared part of all locks on one client in one event loop.

    Args:
        client: The client.
        loop: The running loop, to which the coordinator belongs.
    """

    def __init__(self, client: CommandClient, loop: asyncio.AbstractEventLoop) -> None:
        self.scripts: ScriptClient = ScriptClient(client)
        self.loop = loop
        self.id: str = secrets.token_hex(8)
        self.held: dict[str, Watched] = {}
        # Reentrant holders by lock and task. Any: the holders belong to the layer above.
        self.reentrant: dict[tuple[bytes, object], Any] = {}
        self._serial = itertools.count(1)
        self._waiters: dict[str, Waiter] = {}
        self._queues: dict[tuple[object, ...], QueueWatch] = {}
        self._due: list[QueueWatch] = []
        self._beating = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._wakeups = WakeupSubscription(self)

    def time(self) -> float:
        """Return the time on the clock of `Waiter.wait`."""
        return self.loop.time()

    def new_waiter(self, kind: str) -> Waiter:
        """
        Begin an acquisition under a new token.

        Args:
            kind: "x" for exclusive, "s" for shared.

        Returns:
            What to wait on; to be given to `forget` at the end.
        """
        token = f"{kind}{self.id}.{next(self._serial):x}"
        waiter = self._waiters[token] = Waiter(token)
        return waiter

    async def queue_up(
        self, waiter: Waiter, spec: QueueKeys, look_in: float, until: float | None, asked_at: float
    ) -> bool:
        """
        Beat for a waiter that the server has put into the queue.

        Args:
            waiter: The waiter.
            spec: Its lock.
            look_in: Seconds after which to look at the lock at the latest.
            until: Time at which the waiter gives up, or None.
            asked_at: When it asked for the lock, by `boot_time`.

        Returns:
            Whether the waiter must look again at once, since the subscription began only after that.
        """
        queue = waiter.queue

        if queue is None:
            queue = self._queues.get(spec.identity)

            if queue is None:
                queue = self._queues[spec.identity] = QueueWatch(self, spec)

            waiter.queue = queue
            queue.waiters[waiter.token] = waiter

        if queue.timer is None or queue.due > self.loop.time() + look_in + 0.02:
            queue.look_within(look_in)

        return await self._wakeups.begin(until, asked_at)

    def contended(self, spec: QueueKeys) -> bool:
        """Tell whether any local task waits for a lock: then no call for it is the simple case."""
        return spec.identity in self._queues

    def forget(self, waiter: Waiter) -> None:
        """End an acquisition, however it ended."""
        self._waiters.pop(waiter.token, None)
        queue = waiter.queue

        if queue is not None:
            waiter.queue = None
            queue.waiters.pop(waiter.token, None)

            if not queue.waiters:
                queue.stop()
                self._queues.pop(queue.spec.identity, None)

            if not self._queues:
                self._wakeups.linger()

    def hint(self, tokens: Iterable[str | bytes]) -> None:
        """Wake the local tasks and holders behind tokens, as far as they still exist."""
        for raw in tokens:
            token = raw if isinstance(raw, str) else raw.decode()
            waiter = self._waiters.get(token)

            if waiter is not None:
                waiter.wake()
            elif (watched := self.held.get(token)) is not None:
                watched.look()

    def look_at_all(self) -> None:
        """Look at every lock that somebody waits for: wake-ups may have been missed."""
        for queue in self._queues.values():
            queue.look_within(0.0)

    @property
    def waiting(self) -> bool:
        """Whether any local task stands in a queue."""
        return bool(self._queues)

    def check_flow(self, name: str) -> None:
        """Refuse use from another event loop: it would hang there."""
        check_flow(self.loop, f"lock {name!r}")

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        await asyncio.sleep(seconds)

    def new_event(self) -> Event:
        """Return an event to wait for."""
        return asyncio.Event()

    def call_back(self, function: Callable[[T], Awaitable[None] | None], argument: T) -> None:
        """Call a user's function or coroutine function; what it raises is logged."""
        try:
            work = function(argument)
        except Exception:  # noqa: BLE001 - a user's code may raise anything; it is logged
            _log.exception("callback %r failed", function)
            return

        if inspect.isawaitable(work):
            self.spawn(self._await_logged, function, work)

    async def _await_logged(self, function: object, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception:  # noqa: BLE001 - a user's code may raise anything; it is logged
            _log.exception("callback %r failed", function)

    def spawn(self, work: Callable[P, Coroutine[Any, Any, None]], *args: P.args, **kwargs: P.kwargs) -> Job:
        """Run work in a task that the coordinator keeps alive and that keeps the coordinator alive."""
        task = self.loop.create_task(work(*args, **kwargs))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def settle(
        self, jobs: set[Job], work: Callable[P, Coroutine[Any, Any, None]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Run work in the background, and keep it among somebody's jobs until it is done."""
        task = self.spawn(work, *args, **kwargs)
        jobs.add(task)
        task.add_done_callback(jobs.discard)

    async def join(self, jobs: set[Job], within: float) -> None:
        """Wait until all jobs are done, for so many seconds at most; a cancel leaves them running."""
        if jobs:
            await asyncio.wait(jobs, timeout=within)

    async def aclose(self) -> None:
        """Stop listening and beating."""
        for queue in self._queues.values():
            queue.stop()

        self._wakeups.stop()
        tasks = set(self._tasks)

        for task in tasks:
            task.cancel()

        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    def beat_soon(self, queue: QueueWatch) -> None:
        """Take a queue into the next round of heartbeats."""
        queue.timer = None
        self._due.append(queue)

        if not self._beating:
            self._beating = True
            self.spawn(self._beat)

    async def _beat(self) -> None:
        try:
            while self._due:
                queues = self._take_due()

                try:
                    within = min([5.0, *(_patience(queue) for queue in queues)])
                    replies = await self.scripts.many([self._beat_call(queue) for queue in queues], within)
                except Exception as error:  # noqa: BLE001 - whatever it is, the queues look again later
                    replies = [error] * len(queues)

                for queue, reply in zip(queues, replies, strict=True):
                    if isinstance(reply, BaseException):
                        _log.debug("a heartbeat failed, and is sent again: %r", reply)
                        queue.look_within(random.uniform(0.1, 0.5))
                    else:
                        self.hint(reply[1:])
                        queue.look_within(max(0.05, int(reply[0]) / 1000))

                    if not queue.waiters:
                        queue.stop()
        finally:
            self._beating = False

    def _take_due(self) -> list[QueueWatch]:
        """Return the queues that are due, and those that soon will be: they share the round trip."""
        queues = {id(queue): queue for queue in self._due if queue.waiters}
        self._due.clear()
        now = self.loop.time()

        for queue in self._queues.values():
            if queue.due - now < queue.spec.heartbeat / 15_000:
                queue.stop()
                queues[id(queue)] = queue

        return list(queues.values())

    def _beat_call(self, queue: QueueWatch) -> tuple[Any, Any, Any]:
        spec = queue.spec
        return (
            load("beat"),
            spec.keys.shared,
            (self.id, spec.heartbeat, spec.limit, spec.delay, *queue.waiters),
        )


def _patience(queue: QueueWatch) -> float:
    """Return the seconds for one heartbeat: when its reply is lost, the next one must not be late."""
    return max(0.1, queue.spec.heartbeat / 3000)


def coordinator_for(client: CommandClient) -> Coordinator:
    """
    Return the coordinator of a client in the running loop.

    Args:
        client: The client.

    Returns:
        The coordinator, the same one for all locks on that client.

    Raises:
        UsageError: There is no running event loop.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise UsageError(
            "a lock needs a running event loop: use ws_redislock.sync where there is none"
        ) from None

    identity = (os.getpid(), id(loop), id(client))
    coordinator = _coordinators.get(identity)

    if coordinator is None:
        coordinator = _coordinators[identity] = Coordinator(client, loop)

    return coordinator
