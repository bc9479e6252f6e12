"""The metrics of the table as observable instruments of OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from ws_core.metrics import METRICS, Sample, TimeRecorder, sample
from ws_core.otel import observe


class Counts:
    """An object with a number of each kind."""

    def statistics(self) -> Counts:
        """Return itself."""
        return self

    def samples(self) -> list[Sample]:
        """Return a gauge, a counter, times, and what others record."""
        times = TimeRecorder("wintersweet.event_loop.lag")
        requests = TimeRecorder("http.server.request.duration")
        times.record(0.25)
        times.record(0.5)
        requests.record(1.0, "GET")
        return [
            sample("wintersweet.task.running", 3, attributes={"wintersweet.task.name": "report"}),
            sample("wintersweet.cache.errors", 2),
            sample("wintersweet.lock.lost", 1),
            *times.samples(),
            *requests.samples(),
        ]


@pytest.fixture
def reader() -> InMemoryMetricReader:
    """A reader that collects when it is asked."""
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader: InMemoryMetricReader) -> Iterator[MeterProvider]:
    """A provider with that reader."""
    found = MeterProvider(metric_readers=[reader])
    yield found
    found.shutdown()


def points(reader: InMemoryMetricReader) -> dict[str, Any]:
    """Return the unit, the attributes and the value by name."""
    data = reader.get_metrics_data()
    found = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics] if data else []
    points: list[tuple[Any, Any]] = [(m, point) for m in found for point in m.data.data_points]
    return {m.name: (m.unit, dict(point.attributes), point.value) for m, point in points}


def test_numbers(reader: InMemoryMetricReader, provider: MeterProvider) -> None:
    """Each kind has its instrument; what is recorded elsewhere is not reported twice."""
    observation = observe(Counts(), meter_provider=provider)
    expected = {
        "wintersweet.task.running": ("{run}", {"wintersweet.task.name": "report"}, 3),
        "wintersweet.cache.errors": ("{error}", {}, 2),
        "wintersweet.event_loop.lag.sum": ("s", {}, 0.75),
        "wintersweet.event_loop.lag.count": ("{time}", {}, 2),
    }
    assert points(reader) == expected
    observation.close()
    observation.close()
    assert points(reader) == {}


def test_some_of_them(reader: InMemoryMetricReader, provider: MeterProvider) -> None:
    """By the beginning of their names."""
    observe(Counts(), only="wintersweet.task.", meter_provider=provider)
    assert set(points(reader)) == {"wintersweet.task.running"} <= set(METRICS)
