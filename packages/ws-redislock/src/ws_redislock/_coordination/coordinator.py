"""What all locks on one client in one event loop share: tokens, wake-ups and heartbeats.

However many locks and waiters there are, a coordinator has one subscription, and sends one
heartbeat per lock that has a local waiter. It lives as long as a lock or a job refers to it.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import secrets
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, ParamSpec, Protocol, TypeVar

from redis.exceptions import ResponseError

from ws_core.backoff import spread
from ws_redislock._concurrency import (
    Job,
    Loop,
    Mutex,
    Signal,
    check_loop,
    current_loop,
    run_callback,
    start,
    wait_jobs,
)
from ws_redislock._coordination.wakeups import WakeupSubscription
from ws_redislock._lease.timers import Timer, Timers
from ws_redislock._redis.clients import CommandClient
from ws_redislock._redis.keys import QueueKeys
from ws_redislock._redis.script_client import ScriptClient
from ws_redislock._redis.scripts import load

P = ParamSpec("P")
T = TypeVar("T")

SHORTEST_LOOK = 0.05
"""Seconds that lie at least between two looks of a coordinator at one lock."""

UNSUBSCRIBED_LOOK = 1.0
"""Seconds between two looks at most while the server refuses the subscription to wake-ups."""

_logger = logging.getLogger("ws_redislock")

_coordinators: weakref.WeakValueDictionary[tuple[int, int, int], Coordinator] = weakref.WeakValueDictionary()
_making = Mutex()


class Waiter(Signal):
    """One acquisition that may have to wait: the signal that wakes it up, and its token."""

    __slots__ = ("granted", "lease_ms", "queue", "token", "uncertain")

    def __init__(self, token: str) -> None:
        super().__init__()
        self.token: str = token
        self.queue: QueueWatch | None = None
        self.uncertain: bool = False
        self.lease_ms: int = 0  # with which it may be handed the lock by a RELEASE; 0: it must ENTER
        self.granted: tuple[float, int] | None = None  # when that RELEASE was sent, and the fence

    def mark_uncertain(self) -> None:
        """Take note that an ENTER was not answered: it may still arrive."""
        self.uncertain = True


class Watched(Protocol):
    """A holder to be notified when its lock may have been taken away."""

    def look(self) -> None:
        """Check the lease now."""


class QueueWatch:
    """The local waiters of one lock, with the timer of their next heartbeat."""

    __slots__ = ("_coordinator", "beat_at", "due", "keys", "timer", "waiters")

    def __init__(self, coordinator: Coordinator, keys: QueueKeys) -> None:
        self._coordinator = coordinator
        self.keys: QueueKeys = keys
        self.waiters: dict[str, Waiter] = {}
        self.due: float = 0.0
        self.beat_at: float = 0.0  # when the waiters' next heartbeat must be sent; looks in between are cheap
        self.timer: Timer | None = None

    def look_within(self, seconds: float) -> None:
        """Let the next heartbeat come after so many seconds, or after a third of its period."""
        longest = self.keys.heartbeat / 3000

        if self._coordinator.unsubscribed:
            longest = min(longest, UNSUBSCRIBED_LOOK)

        # At random a little later, so that the processes that wait for one lock do not all look at once.
        seconds = min(longest, max(0.0, seconds) + spread(0.02, 0.1, 1.0))

        with self._coordinator.mutex:
            self.stop()
            self.due = self._coordinator.time() + seconds
            beat = functools.partial(self._coordinator.beat_soon, self)
            self.timer = self._coordinator.timers.call_later(seconds, beat)

    def stop(self) -> None:
        """Stop the timer."""
        if self.timer is not None:
            self._coordinator.timers.cancel(self.timer)
            self.timer = None


class Coordinator:
    """The shared part of all locks on one client in one event loop."""

    def __init__(self, client: CommandClient, loop: Loop) -> None:
        self.scripts: ScriptClient = ScriptClient(client)
        self.timers: Timers = self.scripts.timers
        self.loop: Loop = loop
        self.mutex: Mutex = Mutex()
        self.id: str = secrets.token_hex(8)
        self.held: dict[str, Watched] = {}
        # Reentrant holders by lock and task. Any: the holders belong to the layer above.
        self.reentrant: dict[tuple[bytes, object], Any] = {}
        self._serial = itertools.count(1)
        self._waiters: dict[str, Waiter] = {}
        self._queues: dict[tuple[object, ...], QueueWatch] = {}
        self._due: list[QueueWatch] = []
        self._beating = False
        self._jobs: set[Job] = set()
        self._wakeups = WakeupSubscription(self)

    def time(self) -> float:
        """Return the time on the clock of `Waiter.wait`."""
        return self.loop.time()

    def check_loop(self, name: str) -> None:
        """Refuse use from another event loop than that of the first use."""
        check_loop(self.loop, f"lock {name!r}")

    @property
    def waiting(self) -> bool:
        """Whether there is any local waiter."""
        return bool(self._queues)

    @property
    def unsubscribed(self) -> bool:
        """Whether the server refuses the subscription to wake-ups."""
        return self._wakeups.refused

    def new_waiter(self, kind: str) -> Waiter:
        """Begin an acquisition, "x" for exclusive or "s" for shared, under a new token."""
        token = f"{kind}{self.id}.{next(self._serial):x}"
        waiter = self._waiters[token] = Waiter(token)
        return waiter

    async def enqueue(
        self, waiter: Waiter, keys: QueueKeys, look_in: float, until: float | None, asked_at: float
    ) -> bool:
        """
        Send heartbeats for a waiter that the server has put into the queue, and listen for wake-ups.

        The lock is looked at after `look_in` seconds at the latest. Returns whether listening began only
        after `asked_at` (the `boot_time` of the ENTER): then the waiter must look again at once.
        """
        with self.mutex:
            queue = waiter.queue

            if queue is None:
                queue = self._queues.get(keys.identity)

                if queue is None:
                    queue = self._queues[keys.identity] = QueueWatch(self, keys)

                waiter.queue = queue
                queue.waiters[waiter.token] = waiter

            if queue.timer is None or queue.due > self.time() + look_in + SHORTEST_LOOK:
                queue.look_within(max(SHORTEST_LOOK, look_in))

        return await self._wakeups.begin(until, asked_at)

    def contended(self, keys: QueueKeys) -> bool:
        """Return whether a lock has local waiters: then no call for it is the simple case."""
        return keys.identity in self._queues

    def first_waiter(self, keys: QueueKeys) -> Waiter | None:
        """Return the local waiter of a lock that came first."""
        queue = self._queues.get(keys.identity)

        if queue is None:
            return None

        with self.mutex:
            return next(iter(queue.waiters.values()), None)

    def grant(self, token: str | bytes, sent_at: float, fence: int) -> None:
        """Hand a local waiter the lock that a RELEASE has granted to it."""
        waiter = self._waiters.get(token if isinstance(token, str) else token.decode())

        if waiter is not None:
            waiter.granted = (sent_at, fence)
            waiter.set()

    def remove_waiter(self, waiter: Waiter) -> None:
        """End an acquisition, however it ended."""
        self._waiters.pop(waiter.token, None)

        if waiter.queue is None:
            return

        with self.mutex:
            queue, waiter.queue = waiter.queue, None
            queue.waiters.pop(waiter.token, None)

            if not queue.waiters:
                queue.stop()
                self._queues.pop(queue.keys.identity, None)

            if not self._queues:
                self._wakeups.stop_when_idle()

    def wake(self, tokens: Iterable[str | bytes]) -> None:
        """Wake the local waiters and holders behind tokens, as far as they still exist."""
        for raw in tokens:
            token = raw if isinstance(raw, str) else raw.decode()
            waiter = self._waiters.get(token)

            if waiter is not None:
                waiter.set()
            elif (watched := self.held.get(token)) is not None:
                watched.look()

    def look_at_all(self) -> None:
        """Look at every lock that has local waiters: wake-ups may have been missed."""
        with self.mutex:
            for queue in self._queues.values():
                queue.look_within(0.0)

    def call_back(self, function: Callable[[T], Awaitable[None] | None], argument: T) -> None:
        """Call a user's function; what it raises is logged."""
        run_callback(self.spawn, function, argument)

    def spawn(self, work: Callable[P, Coroutine[Any, Any, None]], *args: P.args, **kwargs: P.kwargs) -> Job:
        """Run work in the background; the coordinator keeps it alive, and it the coordinator."""
        job = start(self.loop, work, *args, **kwargs)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return job

    def settle(
        self, jobs: set[Job], work: Callable[P, Coroutine[Any, Any, None]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Run work in the background, and keep it among a lock's jobs until it is done."""
        job = self.spawn(work, *args, **kwargs)
        jobs.add(job)
        job.add_done_callback(jobs.discard)

    async def aclose(self) -> None:
        """Stop listening and beating."""
        with self.mutex:
            for queue in self._queues.values():
                queue.stop()

            self._wakeups.stop()
            jobs = set(self._jobs)

        for job in jobs:
            job.cancel()

        await wait_jobs(jobs, 1.0)

    def beat_soon(self, queue: QueueWatch) -> None:
        """Take a queue into the next round of heartbeats."""
        with self.mutex:
            queue.timer = None
            self._due.append(queue)

            if self._beating:
                return

            self._beating = True

        self.spawn(self._beat)

    async def _beat(self) -> None:
        try:
            while queues := self._take_due():
                await self._beat_round(queues)
        except BaseException:
            self._beating = False
            raise

    async def _beat_round(self, queues: list[QueueWatch]) -> None:
        """Send one heartbeat for each queue, and wake the waiters that must look at their lock."""
        replies: list[Any]  # Any: replies or errors

        try:
            # The next heartbeat must not be late because the reply to this one was lost.
            within = min([5.0, *(max(0.1, queue.keys.heartbeat / 3000) for queue in queues)])
            replies = await self.scripts.many([self._beat_call(queue) for queue in queues], within)
        except Exception as error:  # noqa: BLE001 - whatever it is, the queues look again later
            replies = [error] * len(queues)

        for queue, reply in zip(queues, replies, strict=True):
            if isinstance(reply, BaseException):
                # Through an outage waiters go on; a refusal would let them count as dead without a word.
                level = logging.WARNING if isinstance(reply, ResponseError) else logging.DEBUG
                _logger.log(level, "a heartbeat failed, and is sent again: %r", reply)
                queue.beat_at = 0.0
                look_in = spread(0.5, 0.2, 1.0)
            else:
                self.wake(reply[1:])
                look_in = max(SHORTEST_LOOK, int(reply[0]) / 1000)

            with self.mutex:
                if queue.waiters:
                    queue.look_within(look_in)

    def _take_due(self) -> list[QueueWatch]:
        """Return the queues that are due, and those that soon will be: they share the round trip."""
        with self.mutex:
            queues = {id(queue): queue for queue in self._due if queue.waiters}
            self._due.clear()

            if queues:
                now = self.time()

                # Soon: within a fifth of the time between two of its heartbeats.
                for queue in self._queues.values():
                    if queue.due - now < queue.keys.heartbeat / 15_000:
                        queue.stop()
                        queues[id(queue)] = queue

            self._beating = bool(queues)
            return list(queues.values())

    def _beat_call(self, queue: QueueWatch) -> tuple[Any, Any, Any]:  # Any: script, keys and arguments
        keys = queue.keys
        tokens: list[str] = []

        # A heartbeat every third of its period keeps the waiters alive. A look in between, when the lease may
        # have ended, needs no tokens, so that a thousand waiters cost the server nothing.
        if (now := self.time()) >= queue.beat_at:
            tokens = list(queue.waiters)
            queue.beat_at = now + 0.9 * keys.heartbeat / 3000  # the next may go a little early, with others

        return load("beat"), keys.shared, (self.id, keys.heartbeat, keys.limit, keys.delay, *tokens)


def coordinator_for(client: CommandClient) -> Coordinator:
    """Return the coordinator of a client in the running loop, the same one for all locks on it."""
    loop = current_loop()
    identity = (os.getpid(), id(loop), id(client))

    coordinator = _coordinators.get(identity)

    if coordinator is None:
        with _making:
            coordinator = _coordinators.get(identity)  # another thread may have made it meanwhile

            if coordinator is None:
                coordinator = _coordinators[identity] = Coordinator(client, loop)

    return coordinator
