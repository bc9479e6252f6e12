"""What the application itself counts: its requests, its WebSockets, and how late its event loop is."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Final

from ws_core.metrics import Sample, TimeRecorder, sample
from ws_web._observation import Exchange, Observation

_METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
_OTHER: Final = "_OTHER"  # OpenTelemetry's word for a method that is not one of these


class RequestMetrics:
    """Counts the requests of one application; it is its own snapshot."""

    def __init__(self, observation: Observation) -> None:
        self.in_flight: Collection[Exchange] = observation.track()
        self._times = TimeRecorder("http.server.request.duration")
        observation.ends.append(self._end)

    def _end(self, exchange: Exchange) -> None:
        scope = exchange.scope

        if scope["type"] != "http":
            return

        status = str(exchange.status)
        error = type(exchange.error).__qualname__ if exchange.error is not None else ""
        self._times.record(
            exchange.ended - exchange.began,
            _method(exchange),
            status,
            exchange.route or "",
            scope.get("scheme", "http"),
            error or (status if exchange.status >= 500 else ""),
        )

    def statistics(self) -> RequestMetrics:
        """Return the numbers up to now."""
        return self

    def samples(self) -> Iterable[Sample]:
        """Return them as samples."""
        exchanges = list(self.in_flight)
        active = Counter(
            (_method(exchange), exchange.scope.get("scheme", "http"))
            for exchange in exchanges
            if exchange.scope["type"] == "http"
        )
        sockets = sum(exchange.scope["type"] == "websocket" for exchange in exchanges)
        yield from self._times.samples()
        yield sample("wintersweet.websocket.connections", sockets)

        # GET is there from the start, so that the metric is.
        for method, scheme in {("GET", "http"), *active}:
            yield sample(
                "http.server.active_requests",
                active[method, scheme],
                attributes={"http.request.method": method, "url.scheme": scheme},
            )


def _method(exchange: Exchange) -> str:
    return exchange.method if exchange.method in _METHODS else _OTHER


class EventLoopLag:
    """Measures by how much the event loop runs a callback too late; it is its own snapshot."""

    def __init__(self, *, every: float = 0.25) -> None:
        self._every = every
        self._times = TimeRecorder("wintersweet.event_loop.lag")
        self.beat_at: float = 0.0
        self.recent: float = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Measure for the length of a block."""
        task = asyncio.create_task(self._measure(), name="lag of the event loop")

        try:
            yield
        finally:
            task.cancel()

            with suppress(asyncio.CancelledError):
                await task

    async def _measure(self) -> None:
        loop = asyncio.get_running_loop()

        while True:
            due = loop.time() + self._every
            await asyncio.sleep(self._every)
            self.beat_at = loop.time()
            self.recent = max(0.0, self.beat_at - due)
            self._times.record(self.recent)

    def statistics(self) -> EventLoopLag:
        """Return the times up to now."""
        return self

    def samples(self) -> Iterable[Sample]:
        """Return them as samples."""
        return self._times.samples()
