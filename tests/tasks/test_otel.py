"""Spans of jobs and runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry's SDK, which receives the spans")
pytest.importorskip("taskiq", reason="an extra: ws-tasks[taskiq]")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ws_tasks import IntervalTask, JobFailed, LocalEngine, Scheduler, task
from ws_tasks.otel import instrument
from ws_tasks.taskiq import RedisStreamsBroker, TaskiqEngine, run_worker


@task("double")
def double(number: int) -> int:
    """Work in a thread."""
    return number * 2


@task("fails")
async def fails() -> None:
    """Fail."""
    raise ValueError("no")


@pytest.fixture
def provider() -> Iterator[tuple[TracerProvider, InMemorySpanExporter]]:
    """Instrument with a provider whose spans are kept."""
    exporter, found = InMemorySpanExporter(), TracerProvider()
    found.add_span_processor(SimpleSpanProcessor(exporter))
    stop = instrument(tracer_provider=found)

    yield found, exporter

    stop()


def spans(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """Return the spans by name."""
    return {span.name: span for span in exporter.get_finished_spans()}


class TestSpans:
    @pytest.mark.parametrize("kind", ["local", "taskiq"])
    async def test_a_job_is_in_the_trace_of_its_request(
        self, provider: tuple[TracerProvider, InMemorySpanExporter], redis_url: str, kind: str
    ) -> None:
        """Enqueuing and running are children of the caller's span; a failure is noted at the run."""
        found, exporter = provider

        if kind == "local":
            async with LocalEngine():
                await self._use(found)
        else:
            engine = TaskiqEngine([double, fails], broker=RedisStreamsBroker(redis_url, queue="traced"))

            async with engine, run_worker(engine):
                await self._use(found)

        seen = spans(exporter)
        root = seen["request"]
        assert {"send double", "process double", "send fails", "process fails"} < set(seen)
        assert len({span.context.trace_id for span in seen.values() if span.context is not None}) == 1
        sent, run = seen["send double"], seen["process double"]
        assert sent.parent is not None and run.parent is not None and sent.context is not None  # noqa: PT018
        assert root.context is not None
        assert (sent.parent.span_id, run.parent.span_id) == (root.context.span_id, sent.context.span_id)
        assert run.attributes is not None
        assert run.attributes["messaging.destination.name"] == "double"
        assert [event.name for event in seen["process fails"].events] == ["exception"]
        assert not seen["process double"].events

    @staticmethod
    async def _use(provider: TracerProvider) -> None:
        with provider.get_tracer("test").start_as_current_span("request"):
            job, other = await double.enqueue(2), await fails.enqueue()
            assert await job.result(timeout=20) == 4

            with pytest.raises((ValueError, JobFailed)):
                await other.result(timeout=20)

    async def test_scheduled_runs(self, provider: tuple[TracerProvider, InMemorySpanExporter]) -> None:
        """A scheduled run is a trace of its own."""
        async with Scheduler() as scheduler:
            await scheduler.add(IntervalTask(60, print, "tick", name="tick")).run_now()

        [span] = provider[1].get_finished_spans()
        assert (span.name, span.parent) == ("process tick", None)

    async def test_off(self, provider: tuple[TracerProvider, InMemorySpanExporter]) -> None:
        """Nothing is recorded once it is stopped."""
        stop = instrument(tracer_provider=provider[0])
        stop()
        exporter = provider[1]

        async with LocalEngine():
            await (await double.enqueue(1)).result()

        assert len(exporter.get_finished_spans()) == 2  # of the fixture's own
