"""Locks in OpenTelemetry, by its SDK."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis.asyncio import Redis

from ws_core.errors import MissingExtraError
from ws_core.metrics import METRICS
from ws_redislock import LockLost, MutexLock
from ws_redislock.otel import OpenTelemetryObserver, instrument


class Telemetry:
    """An SDK that keeps what it gets."""

    def __init__(self, **options: Any) -> None:  # Any: the observer's options
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.observer = OpenTelemetryObserver(
            meter_provider=MeterProvider([self._reader]), tracer_provider=self.tracers, **options
        )

    def spans(self) -> list[ReadableSpan]:
        """Return the spans that have ended."""
        return list(self._exporter.get_finished_spans())

    def metrics(self) -> dict[str, Any]:
        """Return the metrics by name."""
        data = self._reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


class TestOpenTelemetryObserver:
    """Metrics and spans."""

    async def test_of_a_lock(self, redis7: Redis):
        """A wait, a hold, a wait in vain and a loss are spans inside of the one around them."""
        telemetry = Telemetry(span_from=0.0)
        tracer = telemetry.tracers.get_tracer("test")
        one, two = (MutexLock(redis7, "k", 60, observer=telemetry.observer) for _ in range(2))

        with tracer.start_as_current_span("request") as request:
            assert await one.acquire()
            assert not await two.acquire(0.5)
            assert await one.release()
            assert await one.acquire()
            assert await two.force_release()
            assert not await one.release()

        *found, _ = telemetry.spans()
        assert [span.name for span in found] == [
            "lock.wait", "lock.wait", "lock.hold", "lock.wait", "lock.hold", "lock.lost",
        ]  # fmt: skip
        assert {span.parent.span_id for span in found if span.parent} == {request.get_span_context().span_id}
        wait, vain, *_, lost = found
        assert dict(wait.attributes or {}) == {"lock.name": "k", "lock.acquired": True}
        assert dict(vain.attributes or {}) == {"lock.name": "k", "lock.acquired": False}
        assert vain.start_time is not None
        assert vain.end_time is not None
        assert vain.end_time - vain.start_time >= 50_000_000
        assert "the server" in str((lost.attributes or {})["lock.reason"])

    async def test_of_all_locks(self, redis7: Redis):
        """`instrument` reports locks that know nothing of it, until it is ended."""
        exporter = InMemorySpanExporter()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(exporter))
        stop = instrument(tracer_provider=tracers, meter_provider=MeterProvider(), span_from=0.0)

        async with MutexLock(redis7, "k", 60).hold():
            pass

        stop()

        async with MutexLock(redis7, "k", 60).hold():
            pass

        assert [span.name for span in exporter.get_finished_spans()] == ["lock.wait", "lock.hold"]

    def test_metrics(self):
        """They have the names, units and buckets of the table, and no names of locks."""
        telemetry = Telemetry()
        telemetry.observer.contended("k")
        telemetry.observer.acquired("k", 0.25)
        telemetry.observer.not_acquired("k", 0.0001)
        telemetry.observer.released("k", 2.0)
        telemetry.observer.lost("k", "gone")
        found = telemetry.metrics()
        assert set(found) == {name for name in METRICS if name.startswith("wintersweet.lock.")}

        for name, metric in found.items():
            [point] = metric.data.data_points
            assert metric.unit == METRICS[name].unit
            assert dict(point.attributes) == {}

            if METRICS[name].kind == "histogram":
                assert tuple(point.explicit_bounds) == METRICS[name].buckets
                assert point.count == 1
            else:
                assert point.value == 1

        assert found["wintersweet.lock.hold"].data.data_points[0].sum == 2.0

    def test_short_ones_have_no_span(self):
        """A wait or hold below the bound is counted only; a loss always has a span; names may be left out."""
        telemetry = Telemetry(names=False)
        telemetry.observer.acquired("k", 0.0001)
        telemetry.observer.released("k", 0.0001)
        telemetry.observer.lost("k", "gone")
        [span] = telemetry.spans()
        assert (span.name, dict(span.attributes or {})) == ("lock.lost", {"lock.reason": "gone"})

    async def test_a_loss_cancels_as_ever(self, redis7: Redis):
        """Observed or not, the block ends with the loss."""
        telemetry = Telemetry()

        with pytest.raises(LockLost):
            async with MutexLock(redis7, "k", 60, observer=telemetry.observer).hold() as held:
                held._lose("for the test")

        assert [span.name for span in telemetry.spans()][-1] == "lock.lost"

    def test_missing(self, monkeypatch: pytest.MonkeyPatch):
        """Without OpenTelemetry the observer says what to install."""
        real = builtins.__import__

        def refuse(name: str, *args: Any, **options: Any) -> object:  # Any: as __import__
            if name.startswith("opentelemetry"):
                raise ImportError(name)

            return real(name, *args, **options)

        monkeypatch.setattr(builtins, "__import__", refuse)

        with pytest.raises(MissingExtraError, match=r"ws-redislock\[otel\]"):
            OpenTelemetryObserver()
