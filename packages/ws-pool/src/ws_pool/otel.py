"""Pools in OpenTelemetry: spans of statements, commands and requests, and the pools' numbers.

Needs the extra ``ws-pool[otel]``, which is OpenTelemetry's API only; the SDK and its exporters are the
application's. Without an SDK nothing is recorded.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextvars import Token
from types import TracebackType
from typing import Any, Final, Protocol, Self

from ws_core.metrics import METRICS, collect
from ws_pool._core import tracing
from ws_pool._core.extras import missing
from ws_pool._core.operation import Operation, failure
from ws_pool.base import BasePoolManager

try:
    from opentelemetry import context, metrics, propagate, trace
    from opentelemetry.metrics import Histogram, MeterProvider
    from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider
except ModuleNotFoundError as _error:
    raise missing(__name__, _error, "otel") from _error

from ws_core.otel import MetricsObservation

__all__ = ("Instrumentation", "Observable", "instrument")

_SCOPE: Final = "ws_pool"


class Observable(Protocol):
    """A pool with numbers: every database pool of this distribution."""

    def statistics(self) -> Any:  # Any: of the pool's kind; it has ``samples()``
        """Return a frozen snapshot."""
        ...


Source = Observable | BasePoolManager[Any, Any]  # Any: pools of all kinds


def instrument(
    *sources: Source,
    query_text: bool = True,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> Instrumentation:
    """
    Report the operations of all pools of this process, and the numbers of the given ones.

    Spans: each SQL statement, Redis command or pipeline, and HTTP request, which carries the trace to
    its server (``traceparent``), each event that is published, which carries the trace in its message, and
    each call of a listener. Values, keys and arguments are never recorded. Metrics: those of
    `ws_core.metrics` for database connections and for the durations of operations.

    Args:
        *sources: Pools and managers whose connections are counted; a manager may be started later.
        query_text: Whether spans have the text of statements.
        tracer_provider: A provider of tracers, or None for the global one.
        meter_provider: A provider of meters, or None for the global one.

    Returns:
        What ends it: call its `close`, or use it in ``with``.

    Example:
        ```python no-run
        # needs opentelemetry-api
        from ws_pool import SqlitePool
        from ws_pool.otel import instrument

        pool = SqlitePool("sqlite:///:memory:")

        with instrument(pool):
            async with pool:
                await pool.select("SELECT 1")
        ```
    """
    return Instrumentation(
        sources,
        query_text=query_text,
        tracer=trace.get_tracer(_SCOPE, tracer_provider=tracer_provider),
        meter=metrics.get_meter(_SCOPE, meter_provider=meter_provider),
    )


class Instrumentation:
    """What `instrument` has begun."""

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        query_text: bool,
        tracer: trace.Tracer,
        meter: metrics.Meter,
    ) -> None:
        self._sources = tuple(sources)
        self._tracer = tracer
        self._query_text = query_text
        self._durations: dict[str, Histogram] = {
            name: meter.create_histogram(
                name,
                METRICS[name].unit,
                METRICS[name].description,
                explicit_bucket_boundaries_advisory=METRICS[name].buckets,
            )
            for name in ("db.client.operation.duration", "http.client.request.duration")
        }

        self._numbers = MetricsObservation(
            meter, lambda: collect(*pools) if (pools := list(_pools(self._sources))) else (), "db.client."
        )
        tracing.start(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Report nothing any more. May be called again."""
        self._numbers.close()
        tracing.stop()

    def begin(self, operation: Operation) -> OpenSpan:
        """Begin an operation; called by the pools."""
        attributes = operation.attributes

        if not self._query_text:
            attributes = {key: value for key, value in attributes.items() if key != "db.query.text"}

        parent = None if operation.parent is None else propagate.extract(operation.parent)
        span = self._tracer.start_span(
            operation.name, context=parent, kind=SpanKind[operation.kind.upper()], attributes=attributes
        )
        # What a listener does belongs to the span of its event; all else has no operations within it.
        token = None if parent is None else context.attach(trace.set_span_in_context(span, parent))
        return OpenSpan(span, operation, self._durations.get(operation.duration), token)


class OpenSpan:
    """A span that is not ended yet."""

    __slots__ = ("_began", "_duration", "_operation", "_span", "_token")

    def __init__(
        self,
        span: trace.Span,
        operation: Operation,
        duration: Histogram | None,
        token: Token[context.Context] | None,
    ) -> None:
        self._span = span
        self._token = token
        self._operation = operation
        self._duration = duration
        self._began = time.perf_counter()

    def headers(self) -> Mapping[str, str]:
        """Return the headers that carry the trace to a server."""
        headers: dict[str, str] = {}
        propagate.inject(headers, trace.set_span_in_context(self._span))
        return headers

    def end(self, error: BaseException | None, attributes: Mapping[str, str | int]) -> None:
        """End the span, and record its duration."""
        learned = dict(attributes)

        if failed := failure(error, attributes):
            learned["error.type"] = failed
            self._span.set_status(Status(StatusCode.ERROR, failed))

        self._span.set_attributes(learned)

        self._span.end()

        if self._token is not None:
            context.detach(self._token)

        if self._duration is None:
            return

        known = METRICS[self._operation.duration].attributes
        found = {**self._operation.attributes, **learned}
        measured = {key: value for key, value in found.items() if key in known}
        self._duration.record(time.perf_counter() - self._began, measured)


def _pools(sources: Iterable[Source]) -> Iterable[Observable]:
    for source in sources:
        if not isinstance(source, BasePoolManager):
            yield source
        elif source.ready:
            for name in source.names:
                yield source.get_pool(name)
