"""The metrics of `ws_core.metrics` as OpenTelemetry's observable instruments.

Needs the extra ``ws-core[otel]``, which is OpenTelemetry's API only; the SDK and its exporters are the
application's. Without an SDK nothing is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ws_core.errors import MissingExtraError
from ws_core.metrics import METRICS, Metric, Sample, Source, collect

try:
    from opentelemetry import metrics
    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation
except ModuleNotFoundError as _error:
    raise MissingExtraError.for_extra(__name__, "ws-core[otel]") from _error

__all__ = ("MetricsObservation", "observe")

# Recorded one by one, as histograms, by whoever traces these: ws_pool.otel, ws_redislock.otel, and FastAPI.
_RECORDED: Final = ("db.client.operation.", "http.client.request.", "http.server.", "wintersweet.lock.")


def observe(
    *sources: Source, only: str = "", meter_provider: MeterProvider | None = None
) -> MetricsObservation:
    """
    Report the numbers of this process to OpenTelemetry whenever it collects.

    OpenTelemetry has no observable histograms: of one, the sum and the count are two counters,
    ``<name>.sum`` and ``<name>.count``.

    Args:
        *sources: Which objects to read; by default all that are registered with `ws_core.metrics`.
        only: The beginning of the names to report.
        meter_provider: A provider of meters, or None for the global one.

    Returns:
        What ends it: call its `close`.

    Example:
        ```python no-run
        # needs opentelemetry-api
        from ws_core.otel import observe

        observation = observe()
        observation.close()
        ```
    """
    meter = metrics.get_meter("ws_core", meter_provider=meter_provider)
    return MetricsObservation(meter, lambda: collect(*sources), only)


class MetricsObservation:
    """What `observe` has begun."""

    def __init__(self, meter: Meter, read: Callable[[], Sequence[Sample]], only: str = "") -> None:
        self._read = read
        self._closed = False

        for metric in METRICS.values():
            if metric.name.startswith(only) and not metric.name.startswith(_RECORDED):
                self._create(meter, metric)

    def close(self) -> None:
        """Report nothing any more. May be called again."""
        self._closed = True

    def _create(self, meter: Meter, metric: Metric) -> None:
        name, unit, text = metric.name, metric.unit, metric.description

        if metric.kind == "gauge":
            meter.create_observable_up_down_counter(name, [self._callback(metric, _value)], unit, text)
        elif metric.kind == "counter":
            meter.create_observable_counter(name, [self._callback(metric, _value)], unit, text)
        else:
            meter.create_observable_counter(f"{name}.sum", [self._callback(metric, _value)], unit, text)
            meter.create_observable_counter(f"{name}.count", [self._callback(metric, _count)], "{time}", text)

    def _callback(
        self, metric: Metric, read: Callable[[Sample], float]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def report(_: CallbackOptions) -> Iterable[Observation]:
            if self._closed:
                return

            for found in self._read():
                if found.metric is metric:
                    yield Observation(read(found), dict(found.attributes))

        return report


def _value(found: Sample) -> float:
    return found.value


def _count(found: Sample) -> float:
    return found.count
