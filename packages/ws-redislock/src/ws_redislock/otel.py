"""Locks in OpenTelemetry: metrics, and spans of waits and holds that took long enough to matter.

Needs the extra ``ws-redislock[otel]``, which is OpenTelemetry's API only and is imported when an observer
is made; the SDK and its exporters are the application's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ws_core.metrics import METRICS
from ws_redislock.errors import MissingExtraError
from ws_redislock.observe import observe

__all__ = ("OpenTelemetryObserver", "instrument")


def instrument(
    *,
    names: bool = True,
    span_from: float = 0.001,
    meter_provider: Any = None,  # Any: OpenTelemetry is not needed to read this module
    tracer_provider: Any = None,  # Any: the same
) -> Callable[[], None]:
    """
    Report all locks of this process to OpenTelemetry; ws-web's setting ``OTEL`` does so by itself.

    Args:
        names: Whether spans have the lock's name.
        span_from: Seconds from which a wait or a hold gets a span of its own.
        meter_provider: A provider of meters, or None for the global one.
        tracer_provider: A provider of tracers, or None for the global one.

    Returns:
        A function that ends it.

    Raises:
        MissingExtraError: OpenTelemetry is not installed.

    Example:
        ```python no-run
        # needs opentelemetry-api
        from ws_redislock.otel import instrument

        stop = instrument()
        stop()
        ```
    """
    return observe(
        OpenTelemetryObserver(
            names=names, span_from=span_from, meter_provider=meter_provider, tracer_provider=tracer_provider
        )
    )


class OpenTelemetryObserver:
    """
    A `ws_redislock.observe.LockObserver` that reports to OpenTelemetry.

    It records the metrics of locks in `ws_core.metrics`: the histograms ``wintersweet.lock.wait`` and
    ``wintersweet.lock.hold`` (seconds) and the counters ``wintersweet.lock.contended``,
    ``wintersweet.lock.not_acquired`` and ``wintersweet.lock.lost``. A span ``lock.wait`` or ``lock.hold``
    stands for whatever took at least `span_from` seconds, and one without length, ``lock.lost``, at the
    moment at which a lease is lost.

    Args:
        names: Whether spans have the lock's name; metrics never have it, since there may be many.
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
        meter_provider: Any = None,  # Any: as above
        tracer_provider: Any = None,  # Any: as above
    ) -> None:
        try:
            from opentelemetry import metrics, trace  # noqa: PLC0415 - optional
        except ImportError:
            raise MissingExtraError.for_extra("OpenTelemetryObserver", "ws-redislock[otel]") from None

        meter = metrics.get_meter("ws_redislock", meter_provider=meter_provider)
        self._tracer = trace.get_tracer("ws_redislock", tracer_provider=tracer_provider)
        self._names = names
        self._span_from = span_from
        self._wait = _histogram(meter, "wintersweet.lock.wait")
        self._hold = _histogram(meter, "wintersweet.lock.hold")
        self._contended = _counter(meter, "wintersweet.lock.contended")
        self._not_acquired = _counter(meter, "wintersweet.lock.not_acquired")
        self._lost = _counter(meter, "wintersweet.lock.lost")

    def contended(self, name: str) -> None:
        """Count a contended acquisition."""
        self._contended.add(1)

    def acquired(self, name: str, waited: float) -> None:
        """Record the waiting time."""
        self._wait.record(waited)
        self._span("lock.wait", waited, {**self._attributes(name), "lock.acquired": True})

    def not_acquired(self, name: str, waited: float) -> None:
        """Count an acquisition in vain."""
        self._not_acquired.add(1)
        self._span("lock.wait", waited, {**self._attributes(name), "lock.acquired": False})

    def released(self, name: str, held: float) -> None:
        """Record the time for which the lock was held."""
        self._hold.record(held)
        self._span("lock.hold", held, self._attributes(name))

    def lost(self, name: str, reason: str) -> None:
        """Count a loss, with its reason."""
        self._lost.add(1)
        self._span("lock.lost", 0.0, {**self._attributes(name), "lock.reason": reason}, always=True)

    def _attributes(self, name: str) -> dict[str, str]:
        return {"lock.name": name} if self._names else {}

    def _span(
        self, kind: str, seconds: float, attributes: Mapping[str, str | bool], *, always: bool = False
    ) -> None:
        if always or seconds >= self._span_from:
            end = time.time_ns()
            span = self._tracer.start_span(kind, start_time=end - int(seconds * 1e9), attributes=attributes)
            span.end(end)


def _histogram(meter: Any, name: str) -> Any:  # Any: as above
    """Create a histogram of the table of metrics."""
    metric = METRICS[name]
    return meter.create_histogram(
        name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=metric.buckets
    )


def _counter(meter: Any, name: str) -> Any:  # Any: as above
    """Create a counter of the table of metrics."""
    return meter.create_counter(name, METRICS[name].unit, METRICS[name].description)
