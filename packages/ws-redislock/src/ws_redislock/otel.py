"""Locks in OpenTelemetry: metrics, and a span for every wait that took long enough to matter.

Needs ``opentelemetry-api``, which is imported only when an observer is made.
"""

from __future__ import annotations

import time
from typing import Any

from ws_redislock.errors import MissingExtraError

__all__ = ("OpenTelemetryObserver",)


class OpenTelemetryObserver:
    """
    A `ws_redislock.observe.LockObserver` that reports to OpenTelemetry.

    It records the histograms ``lock.wait`` and ``lock.hold`` (seconds) and the counters
    ``lock.contended``, ``lock.not_acquired`` and ``lock.lost``, each with the attribute
    ``lock.name``; and a span ``lock.wait`` for every wait of at least `span_from` seconds.

    Args:
        names: Whether to record lock names; leave them out when there are many.
        span_from: Seconds from which a wait gets a span of its own.
        meter_provider: A provider of meters, or None for the global one.
        tracer_provider: A provider of tracers, or None for the global one.

    Raises:
        MissingExtraError: OpenTelemetry is not installed.
    """

    def __init__(
        self,
        *,
        names: bool = True,
        span_from: float = 0.001,
        meter_provider: Any = None,  # Any: OpenTelemetry is not needed to read this module
        tracer_provider: Any = None,  # Any: the same
    ) -> None:
        try:
            from opentelemetry import metrics, trace  # noqa: PLC0415 - optional
        except ImportError:
            raise MissingExtraError.for_extra("OpenTelemetryObserver", "opentelemetry-api") from None

        meter = metrics.get_meter("ws_redislock", meter_provider=meter_provider)
        self._tracer = trace.get_tracer("ws_redislock", tracer_provider=tracer_provider)
        self._names = names
        self._span_from = span_from
        self._wait = meter.create_histogram(
            "lock.wait", unit="s", description="Time until a lock was acquired"
        )
        self._hold = meter.create_histogram(
            "lock.hold", unit="s", description="Time for which a lock was held"
        )
        self._contended = meter.create_counter("lock.contended", description="Acquisitions that had to wait")
        self._not_acquired = meter.create_counter("lock.not_acquired", description="Acquisitions in vain")
        self._lost = meter.create_counter("lock.lost", description="Leases that ended before the release")

    def contended(self, name: str) -> None:
        """Count a contended acquisition."""
        self._contended.add(1, self._attributes(name))

    def acquired(self, name: str, waited: float) -> None:
        """Record the waiting time."""
        self._wait.record(waited, self._attributes(name))
        self._span(name, waited, acquired=True)

    def not_acquired(self, name: str, waited: float) -> None:
        """Count an acquisition in vain."""
        self._not_acquired.add(1, self._attributes(name))
        self._span(name, waited, acquired=False)

    def released(self, name: str, held: float) -> None:
        """Record the time for which the lock was held."""
        self._hold.record(held, self._attributes(name))

    def lost(self, name: str, reason: str) -> None:
        """Count a loss, with its reason."""
        self._lost.add(1, {**self._attributes(name), "lock.reason": reason})

    def _attributes(self, name: str) -> dict[str, str]:
        return {"lock.name": name} if self._names else {}

    def _span(self, name: str, waited: float, *, acquired: bool) -> None:
        if waited >= self._span_from:
            end = time.time_ns()
            attributes: dict[str, str | bool] = {**self._attributes(name), "lock.acquired": acquired}
            span = self._tracer.start_span(
                "lock.wait", start_time=end - int(waited * 1e9), attributes=attributes
            )
            span.end(end)
