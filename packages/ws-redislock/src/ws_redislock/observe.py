"""What happens to locks, for metrics and traces.

A `LockObserver` is notified of every event, of one lock (its option ``observer``) or of all (`observe`).
`CountingObserver` keeps numbers, and ``OpenTelemetryObserver`` in `ws_redislock.otel` makes spans and
metrics of them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ws_core.inspection import publish, when_watched
from ws_core.metrics import Sample, TimeRecorder, register, sample

__all__ = ("CountingObserver", "LockObserver", "LockStatistics", "observe")

_logger = logging.getLogger("ws_redislock")

_everywhere: list[LockObserver] = []


class LockObserver(Protocol):
    """Notified of what happens to locks; each method must return at once and not raise."""

    def contended(self, name: str) -> None:
        """An acquisition found the lock busy and waits."""

    def acquired(self, name: str, waited: float) -> None:
        """A lock was acquired after so many seconds."""

    def not_acquired(self, name: str, waited: float) -> None:
        """An acquisition ended without the lock after so many seconds."""

    def released(self, name: str, held: float) -> None:
        """A lock was released after it was held for so many seconds."""

    def lost(self, name: str, reason: str) -> None:
        """A lease ended before it was given back."""


def observe(observer: LockObserver) -> Callable[[], None]:
    """
    Notify an observer of all locks of this process, those of tasks and those of threads.

    Args:
        observer: The observer; a lock's own one is notified as well.

    Returns:
        A function that ends it.

    Example:
        ```python
        from ws_redislock import CountingObserver, MutexLock
        from ws_redislock.observe import observe

        observer = CountingObserver()
        stop = observe(observer)

        async with MutexLock("redis://localhost:6379/0", "stock:7", 60).hold():
            pass

        assert observer.statistics().acquired == 1
        stop()
        ```
    """
    _everywhere.append(observer)

    def stop() -> None:
        if observer in _everywhere:
            _everywhere.remove(observer)

    return stop


def observers_of(own: LockObserver | None) -> Sequence[LockObserver]:
    """Return who is notified of the events of a lock with an observer of its own, or without one."""
    return _everywhere if own is None or own in _everywhere else (own, *_everywhere)


def notify(
    observers: Sequence[LockObserver],
    event: Literal["contended", "acquired", "not_acquired", "released", "lost"],
    *args: str | float,
) -> None:
    """Notify observers; what they raise is logged, and no lock is left held or half done by it."""
    for observer in tuple(observers):
        try:
            getattr(observer, event)(*args)
        except Exception:
            _logger.exception("observer %r failed", observer)


@dataclass(frozen=True, slots=True)
class LockStatistics:
    """
    What a `CountingObserver` has counted so far.

    Args:
        acquired: Acquisitions that got the lock.
        contended: Acquisitions that had to wait.
        not_acquired: Acquisitions that ended without the lock.
        released: Releases.
        lost: Leases that ended before the release.
        wait_seconds: Sum of the times until a lock was acquired, or not.
        hold_seconds: Sum of the times for which locks were held.
    """

    acquired: int = 0
    contended: int = 0
    not_acquired: int = 0
    released: int = 0
    lost: int = 0
    wait_seconds: float = 0.0
    hold_seconds: float = 0.0
    _times: tuple[Sample, ...] = field(default=(), repr=False)

    def samples(self) -> tuple[Sample, ...]:
        """Return the numbers as metrics of `ws_core.metrics`."""
        return (
            *self._times,
            sample("wintersweet.lock.contended", self.contended),
            sample("wintersweet.lock.not_acquired", self.not_acquired),
            sample("wintersweet.lock.lost", self.lost),
        )


class CountingObserver:
    """
    Counts events and sums times, over all locks it is given to.

    Its numbers are among those of `ws_core.metrics` for as long as it lives.

    Example:
        >>> observer = CountingObserver()
        >>> observer.acquired("stock", 0.25)
        >>> observer.statistics().acquired, observer.statistics().wait_seconds
        (1, 0.25)
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()  # locks of threads are observed by several at once
        self._counts = dict.fromkeys(("acquired", "contended", "not_acquired", "released", "lost"), 0)
        self._failed = 0.0
        self._waits = TimeRecorder("wintersweet.lock.wait")
        self._holds = TimeRecorder("wintersweet.lock.hold")
        register(self)

    def contended(self, name: str) -> None:
        """Count a contended acquisition."""
        with self._mutex:
            self._counts["contended"] += 1

    def acquired(self, name: str, waited: float) -> None:
        """Count an acquisition and its waiting time."""
        with self._mutex:
            self._counts["acquired"] += 1
            self._waits.record(waited)

    def not_acquired(self, name: str, waited: float) -> None:
        """Count an acquisition that failed, and its waiting time."""
        with self._mutex:
            self._counts["not_acquired"] += 1
            self._failed += waited

    def released(self, name: str, held: float) -> None:
        """Count a release and the time for which the lock was held."""
        with self._mutex:
            self._counts["released"] += 1
            self._holds.record(held)

    def lost(self, name: str, reason: str) -> None:
        """Count a loss."""
        with self._mutex:
            self._counts["lost"] += 1

    def statistics(self) -> LockStatistics:
        """Return all numbers so far; times in seconds."""
        with self._mutex:
            waits, holds = self._waits.samples(), self._holds.samples()
            return LockStatistics(
                **self._counts,
                wait_seconds=self._failed + sum(time.value for time in waits),
                hold_seconds=sum(time.value for time in holds),
                _times=(*waits, *holds),
            )


class HeldLocks(CountingObserver):
    """A `CountingObserver` that also knows which locks this process holds; not those it held before."""

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[str, list[float]] = {}
        publish("locks", self)

    def acquired(self, name: str, waited: float) -> None:
        """Count an acquisition, and note that the lock is held."""
        super().acquired(name, waited)

        with self._mutex:
            self._held.setdefault(name, []).append(time.monotonic())

    def released(self, name: str, held: float) -> None:
        """Count a release."""
        super().released(name, held)
        self._forget(name)

    def lost(self, name: str, reason: str) -> None:
        """Count a loss."""
        super().lost(name, reason)
        self._forget(name)

    def inspect(self) -> list[dict[str, object]]:
        """Return the locks that are held, and for how many seconds already."""
        now = time.monotonic()

        with self._mutex:
            held = [(name, since) for name, times in self._held.items() for since in times]

        return [{"name": name, "seconds": now - since} for name, since in held]

    def _forget(self, name: str) -> None:
        """Note that a lock is not held any more: of several holders of a semaphore, the first."""
        with self._mutex:
            times = self._held.pop(name, [])[1:]

            if times:
                self._held[name] = times


when_watched(lambda: observe(HeldLocks()))
