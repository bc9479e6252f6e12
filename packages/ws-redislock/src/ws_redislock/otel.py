"""Locks in OpenTelemetry: metrics, and spans of waits and holds that took long enough to matter.

Needs ``opentelemetry-api``, which is imported only when an observer is made.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ws_redislock.errors import MissingExtraError

__all__ = ("OpenTelemetryObserver",)


class OpenTelemetryObserver:
    """
    A `ws_redislock.observe.LockObserver` that reports to OpenTelemetry.

    It records the histograms ``lock.wait`` and ``lock.hold`` (seconds) and the counters
    ``lock.contended``, ``lock.not_acquired`` and ``lock.lost``, each with the attribute
    ``lock.name``; a span ``lock.wait`` or ``lock.hold`` for whatever took at least `span_from`
    seconds; and a span without length, ``lock.lost``, at the moment at which a lease is lost.

    Args:
        names: Whether to record lock names; leave them out when there are many.
        span_from: Seconds from which a wait or a hold gets a span of its own.
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
        self._span("lock.wait", waited, {**self._attributes(name), "lock.acquired": True})

    def not_acquired(self, name: str, waited: float) -> None:
        """Count an acquisition in vain."""
        self._not_acquired.add(1, self._attributes(name))
        self._span("lock.wait", waited, {**self._attributes(name), "lock.acquired": False})

    def released(self, name: str, held: float) -> None:
        """Record the time for which the lock was held."""
        self._hold.record(held, self._attributes(name))
        self._span("lock.hold", held, self._attributes(name))

    def lost(self, name: str, reason: str) -> None:
        """Count a loss, with its reason."""
        attributes = {**self._attributes(name), "lock.reason": reason}
        self._lost.add(1, attributes)
        self._span("lock.lost", 0.0, attributes, always=True)

    def _attributes(self, name: str) -> dict[str, str]:
        return {"lock.name": name} if self._names else {}

    def _span(
        self, kind: str, seconds: float, attributes: Mapping[str, str | bool], *, always: bool = False
    ) -> None:
        if always or seconds >= self._span_from:
            end = time.time_ns()
            span = self._tracer.start_span(kind, start_time=end - int(seconds * 1e9), attributes=attributes)
            span.end(end)
