"""One coordinator per process and blocking client, with threads."""

from __future__ import annotations

import itertools
import logging
import os
import random
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar

from ws_redislock._redis.keys import QueueKeys
from ws_redislock._redis.scripts import load
from ws_redislock.errors import UsageError
from ws_redislock.sync._coordination.wakeups import WakeupSubscription
from ws_redislock.sync._lease.timers import Timer, call_at
from ws_redislock.sync._redis.script_client import CommandClient, ScriptClient

__all__ = ("Coordinator", "Event", "Job", "Waiter", "coordinator_for")

P = ParamSpec("P")
T = TypeVar("T")
Event: TypeAlias = threading.Event
Job: TypeAlias = threading.Thread

_log = logging.getLogger("ws_redislock")
_coordinators: weakref.WeakValueDictionary[tuple[int, int], Coordinator] = weakref.WeakValueDictionary()
_making = threading.Lock()


class Waiter:
    """One acquisition that may have to wait; a wake-up that comes early is kept."""

    __slots__ = ("_woken", "doubtful", "queue", "token")

    def __init__(self, token: str) -> None:
        self.token: str = token
        self.queue: QueueWatch | None = None
        self._woken = threading.Event()
        self.doubtful: bool = False

    def doubt(self) -> None:
        """Take note that an ENTER was not answered: it may arrive whenever it likes."""
        self.doubtful = True

    def wake(self) -> None:
        """Let the waiting thread look at the lock."""
        self._woken.set()

    def wait(self, until: float | None) -> bool:
        """Wait for a wake-up until a time on `Coordinator.time`, or for ever; return whether one came."""
        woken = self._woken.wait(None if until is None else max(0.0, until - time.monotonic()))
        self._woken.clear()
        return woken


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
        self.timer: Timer | None = None

    def look_within(self, seconds: float) -> None:
        """Make the next heartbeat come after so many seconds, or after a third of its period."""
        seconds = min(self.spec.heartbeat / 3000, max(0.0, seconds) + random.uniform(0.002, 0.02))
        self.stop()
        self.due = time.monotonic() + seconds
        self.timer = call_at(self.due, self.beat)

    def stop(self) -> None:
        """Stop the timer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def beat(self) -> None:
        """Send one heartbeat for all local waiters, and wake those that must look."""
        tokens = list(self.waiters)

        if not tokens:
            return

        spec = self.spec
        args: list[str | bytes | int] = [self.coordinator.id, spec.heartbeat, spec.limit, spec.delay, *tokens]

        try:
            within = min(5.0, max(0.1, spec.heartbeat / 3000))  # a lost reply must not delay the next one
            reply = self.coordinator.scripts.once(load("beat"), spec.keys.shared, args, within)
        except Exception as error:  # noqa: BLE001 - whatever it is, the queue looks again later
            _log.debug("a heartbeat failed, and is sent again: %r", error)
            self.look_within(random.uniform(0.1, 0.5))
            return

        self.coordinator.hint(reply[1:])

        with self.coordinator.mutex:
            if self.waiters:
                self.look_within(max(0.05, int(reply[0]) / 1000))


class Coordinator:
    """
    The shared part of all locks on one client in one process.

    Args:
        client: The client.
    """

    def __init__(self, client: CommandClient) -> None:
        self.scripts: ScriptClient = ScriptClient(client)
        self.mutex: threading.RLock = threading.RLock()
        self.id: str = secrets.token_hex(8)
        self._process = os.getpid()
        self.held: dict[str, Watched] = {}
        # Reentrant holders by lock and thread. Any: the holders belong to the layer above.
        self.reentrant: dict[tuple[bytes, object], Any] = {}
        self._serial = itertools.count(1)
        self._waiters: dict[str, Waiter] = {}
        self._queues: dict[tuple[object, ...], QueueWatch] = {}
        self._wakeups = WakeupSubscription(self)

    def time(self) -> float:
        """Return the time on the clock of `Waiter.wait`."""
        return time.monotonic()

    def check_flow(self, name: str) -> None:
        """Allow use from any thread, but not from a forked process: it would repeat this one's tokens."""
        if self._process != os.getpid():
            raise UsageError(
                f"lock {name!r} was used before the process was forked: make one per process", lock=name
            )

    def new_waiter(self, kind: str) -> Waiter:
        """Begin an acquisition under a new token; see the twin."""
        token = f"{kind}{self.id}.{next(self._serial):x}"
        waiter = self._waiters[token] = Waiter(token)
        return waiter

    def queue_up(
        self, waiter: Waiter, spec: QueueKeys, look_in: float, until: float | None, asked_at: float
    ) -> bool:
        """Beat for a waiter that the server has put into the queue; see the twin."""
        with self.mutex:
            queue = waiter.queue

            if queue is None:
                queue = self._queues.get(spec.identity)

                if queue is None:
                    queue = self._queues[spec.identity] = QueueWatch(self, spec)

                waiter.queue = queue
                queue.waiters[waiter.token] = waiter

            if queue.timer is None or queue.due > time.monotonic() + look_in + 0.02:
                queue.look_within(look_in)

        return self._wakeups.begin(until, asked_at)

    def contended(self, spec: QueueKeys) -> bool:
        """Tell whether any local thread waits for a lock; see the twin."""
        return spec.identity in self._queues

    def forget(self, waiter: Waiter) -> None:
        """End an acquisition, however it ended."""
        self._waiters.pop(waiter.token, None)

        if waiter.queue is not None:
            with self.mutex:
                queue, waiter.queue = waiter.queue, None
                queue.waiters.pop(waiter.token, None)

                if not queue.waiters:
                    queue.stop()
                    self._queues.pop(queue.spec.identity, None)

    def hint(self, tokens: Iterable[str | bytes]) -> None:
        """Wake the local threads and holders behind tokens, as far as they still exist."""
        for raw in tokens:
            token = raw if isinstance(raw, str) else raw.decode()
            waiter = self._waiters.get(token)

            if waiter is not None:
                waiter.wake()
            elif (watched := self.held.get(token)) is not None:
                watched.look()

    def look_at_all(self) -> None:
        """Look at every lock that somebody waits for: wake-ups may have been missed."""
        with self.mutex:
            for queue in self._queues.values():
                queue.look_within(0.0)

    @property
    def waiting(self) -> bool:
        """Whether any local thread stands in a queue."""
        return bool(self._queues)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def new_event(self) -> Event:
        """Return an event to wait for."""
        return threading.Event()

    def call_back(self, function: Callable[[T], None], argument: T) -> None:
        """Call a user's function; what it raises is logged."""
        try:
            function(argument)
        except Exception:  # noqa: BLE001 - a user's code may raise anything; it is logged
            _log.exception("callback %r failed", function)

    def spawn(self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> Job:
        """Run work in a thread."""
        thread = threading.Thread(target=work, args=args, kwargs=kwargs, name="ws_redislock", daemon=True)
        thread.start()
        return thread

    def settle(self, jobs: set[Job], work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run work in the background, and keep it among somebody's jobs until it is done."""
        jobs.difference_update([job for job in jobs if not job.is_alive()])
        jobs.add(self.spawn(work, *args, **kwargs))

    def join(self, jobs: set[Job], within: float) -> None:
        """Wait until all jobs are done, for so many seconds at most."""
        end = time.monotonic() + within

        for job in list(jobs):
            job.join(max(0.0, end - time.monotonic()))

    def close(self) -> None:
        """Stop listening and beating."""
        with self.mutex:
            for queue in self._queues.values():
                queue.stop()

        self._wakeups.stop()


def coordinator_for(client: CommandClient) -> Coordinator:
    """
    Return the coordinator of a client in this process, the same one for all locks on that client.

    Args:
        client: The client.
    """
    identity = (os.getpid(), id(client))

    with _making:
        coordinator = _coordinators.get(identity)

        if coordinator is None:
            coordinator = _coordinators[identity] = Coordinator(client)

        return coordinator
