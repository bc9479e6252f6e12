"""Jobs and runs in OpenTelemetry: spans, and one trace from the request to its jobs.

Needs ``opentelemetry-api`` only, as ``ws-tasks[otel]``; the SDK and its exporters are the application's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from ws_core.errors import MissingExtraError
from ws_tasks.interface import Run
from ws_tasks.observe import observe

try:
    from opentelemetry import propagate, trace
    from opentelemetry.trace import SpanKind, TracerProvider
except ModuleNotFoundError as _error:
    _message = "ws_tasks.otel needs opentelemetry-api: pip install 'ws-tasks[otel]'"
    raise MissingExtraError(_message, requirement="ws-tasks[otel]") from _error

__all__ = ("instrument",)

_SCOPE: Final = "ws_tasks"


def instrument(*, tracer_provider: TracerProvider | None = None) -> Callable[[], None]:
    """
    Report jobs and runs of this process as spans, and let traces travel with jobs.

    A job has a span ``send TASK`` where it is enqueued, and ``process TASK`` where it runs, in the same
    trace; a scheduled run has the second one only. Arguments and results are never recorded.

    Args:
        tracer_provider: A provider of tracers, or None for the global one.

    Returns:
        A function that ends it.

    Example:
        ```python
        from ws_tasks.otel import instrument

        stop = instrument()
        stop()
        ```
    """
    return observe(_Tracer(trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)))


class _Tracer:
    """Makes spans."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    @contextmanager
    def enqueuing(self, task: str, headers: dict[str, str]) -> Iterator[None]:
        """Make a span of handing a job over, whose trace travels with it."""
        attributes = _attributes(task, "send")

        with self._tracer.start_as_current_span(
            f"send {task}", kind=SpanKind.PRODUCER, attributes=attributes
        ):
            propagate.inject(headers)
            yield

    @contextmanager
    def running(self, run: Run, headers: Mapping[str, str]) -> Iterator[None]:
        """Make a span of a run, in the trace of its job."""
        attributes = {**_attributes(run.name, "process"), "messaging.message.id": run.id}
        parent = propagate.extract(headers)

        with self._tracer.start_as_current_span(
            f"process {run.name}", context=parent, kind=SpanKind.CONSUMER, attributes=attributes
        ):
            yield


def _attributes(task: str, operation: str) -> dict[str, str]:
    return {
        "messaging.system": "ws_tasks",
        "messaging.destination.name": task,
        "messaging.operation.type": operation,
    }
