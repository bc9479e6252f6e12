"""A span of OpenTelemetry for each request, where neither FastAPI nor an instrumentation makes one.

FastAPI does it by itself since it has ``fastapi.telemetry``; before, this does.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind, StatusCode
from starlette.types import ASGIApp, Receive, Scope, Send

from ws_web._observation import Exchange

_SPAN = "ws_web.span"  # of the scope


def is_needed() -> bool:
    """Return whether FastAPI is of a version that makes no spans."""
    return importlib.util.find_spec("fastapi.telemetry") is None


class ServerSpanMiddleware:
    """Have each request and WebSocket in a span, a child of the client's."""

    def __init__(self, app: ASGIApp, *, tracer_provider: trace.TracerProvider | None = None) -> None:
        self._app = app
        self._tracer = trace.get_tracer("ws_web", tracer_provider=tracer_provider)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; one that is in a span already passes unchanged, as other scopes do."""
        if scope["type"] not in ("http", "websocket") or trace.get_current_span().get_span_context().is_valid:
            await self._app(scope, receive, send)
            return

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}

        with self._tracer.start_as_current_span(
            scope.get("method", "WEBSOCKET"),
            propagate.extract(headers),
            SpanKind.SERVER,
            _first_attributes(scope),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            scope[_SPAN] = span
            await self._app(scope, receive, send)


def _first_attributes(scope: Scope) -> dict[str, Any]:  # Any: OpenTelemetry's values
    attributes = {"url.scheme": scope.get("scheme", "http"), "url.path": scope["path"]}

    if scope["type"] == "http":
        attributes["http.request.method"] = scope["method"]

    if scope.get("client"):
        attributes["client.address"] = scope["client"][0]

    return attributes


def describe(exchange: Exchange) -> None:
    """Add to the span of an exchange what only its end shows."""
    span: trace.Span | None = exchange.scope.pop(_SPAN, None)

    if span is None:
        return

    span.set_attribute("http.response.status_code", exchange.status)

    if (route := exchange.route) is not None:
        span.set_attribute("http.route", route)
        span.update_name(f"{exchange.method} {route}")

    if exchange.status >= 500:
        span.set_attribute("error.type", str(exchange.status))
        span.set_status(StatusCode.ERROR)
