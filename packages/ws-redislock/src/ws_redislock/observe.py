"""What happens to locks, for metrics and traces.

A `LockObserver` is notified of every event; `CountingObserver` keeps plain numbers, and
``OpenTelemetryObserver`` in `ws_redislock.otel` makes spans and metrics of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import ParamSpec, Protocol

__all__ = ("CountingObserver", "LockObserver")

P = ParamSpec("P")

_log = logging.getLogger("ws_redislock")


def notify(method: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Notify an observer; what it raises is logged, and no lock is left held or half done by it."""
    try:
        method(*args, **kwargs)
    except Exception:  # noqa: BLE001 - a user's code may raise anything; it is logged
        _log.exception("observer %r failed", method)


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


class CountingObserver:
    """
    Counts events and sums times, over all locks it is given to.

    Example:
        >>> observer = CountingObserver()
        >>> observer.acquired("stock", 0.25)
        >>> observer.statistics()["acquired"], observer.statistics()["wait_seconds"]
        (1, 0.25)
    """

    def __init__(self) -> None:
        self._numbers: dict[str, float] = {
            "acquired": 0,
            "contended": 0,
            "not_acquired": 0,
            "released": 0,
            "lost": 0,
            "wait_seconds": 0.0,
            "hold_seconds": 0.0,
        }

    def contended(self, name: str) -> None:
        """Count a contended acquisition."""
        self._numbers["contended"] += 1

    def acquired(self, name: str, waited: float) -> None:
        """Count an acquisition and its waiting time."""
        self._numbers["acquired"] += 1
        self._numbers["wait_seconds"] += waited

    def not_acquired(self, name: str, waited: float) -> None:
        """Count an acquisition that failed, and its waiting time."""
        self._numbers["not_acquired"] += 1
        self._numbers["wait_seconds"] += waited

    def released(self, name: str, held: float) -> None:
        """Count a release and the time for which the lock was held."""
        self._numbers["released"] += 1
        self._numbers["hold_seconds"] += held

    def lost(self, name: str, reason: str) -> None:
        """Count a loss."""
        self._numbers["lost"] += 1

    def statistics(self) -> Mapping[str, float]:
        """Return all numbers so far; times in seconds."""
        return dict(self._numbers)
