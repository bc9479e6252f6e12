"""The trace of a request: read from its headers, in its log lines, and passed on."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import BackgroundTasks
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ws_core.context import capture, restored
from ws_web import Settings, create_app
from ws_web import _server_span as server_span
from ws_web._trace_context import get_span_id, get_trace_id, get_traceparent, get_tracestate
from ws_web.errors import SettingsError
from ws_web.testing import AppClient

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
Headers = list[tuple[str, str]]


async def seen(headers: Headers) -> dict[str, str]:
    """Return what a handler sees of the trace, and what it would pass on."""
    app = create_app(Settings(ACCESS_LOG="off"))
    found: dict[str, str] = {}

    @app.get("/")
    async def route() -> None:
        found.update(capture(), trace=get_trace_id(), state=get_tracestate())

    async with AppClient(app) as client:
        await client.get("/", headers=headers)

    return found


class TestHeaders:
    """What is accepted, as W3C Trace Context has it."""

    @pytest.mark.parametrize(
        "sent", [PARENT, f"00-{TRACE}-{SPAN}-00", f"cc-{TRACE}-{SPAN}-01-what the future brings"]
    )
    async def test_right_ones(self, sent: str) -> None:
        """They are passed on as they came, with the state, beside the request's id."""
        found = await seen(
            [("traceparent", sent), ("tracestate", "a=1"), ("tracestate", "b=2"), ("x-request-id", "r")]
        )
        assert found == {
            "traceparent": sent,
            "tracestate": "a=1,b=2",
            "x-request-id": "r",
            "trace": TRACE,
            "state": "a=1,b=2",
        }

    @pytest.mark.parametrize(
        "sent",
        [
            [],
            [("traceparent", "")],
            [("traceparent", PARENT), ("traceparent", PARENT)],
            [("traceparent", f"ff-{TRACE}-{SPAN}-01")],
            [("traceparent", f"00-{'0' * 32}-{SPAN}-01")],
            [("traceparent", f"00-{TRACE}-{'0' * 16}-01")],
            [("traceparent", f"{PARENT}-more")],
            [("traceparent", PARENT.upper())],
            [("traceparent", f"{PARENT}\n")],
            [("traceparent", f"{PARENT}\r\nx: y")],
        ],
    )
    async def test_wrong_ones(self, sent: Headers) -> None:
        """Nothing is passed on, not even the state."""
        found = await seen([*sent, ("tracestate", "a=1"), ("x-request-id", "r")])
        assert found == {"x-request-id": "r", "trace": "", "state": ""}

    @pytest.mark.parametrize("state", ["a" * 513, "a\n", "é"])
    async def test_a_wrong_state(self, state: str) -> None:
        """It is left out."""
        found = await seen([("traceparent", PARENT), ("tracestate", state)])
        assert (found["traceparent"], found["state"]) == (PARENT, "")

    def test_outside_of_a_request(self) -> None:
        """There is none."""
        assert (get_traceparent(), get_tracestate(), get_trace_id(), get_span_id()) == ("", "", "", "")

    def test_in_a_job(self) -> None:
        """A job has the trace of the request that enqueued it."""
        with restored({"traceparent": PARENT, "tracestate": "a=1", "x-request-id": "r"}):
            assert (get_trace_id(), get_tracestate()) == (TRACE, "a=1")
            assert capture() == {"traceparent": PARENT, "tracestate": "a=1", "x-request-id": "r"}

        assert get_trace_id() == ""


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """Where finished spans are found."""
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> Iterator[TracerProvider]:
    """A provider that exports there."""
    found = TracerProvider()
    found.add_span_processor(SimpleSpanProcessor(exporter))
    yield found
    found.shutdown()


class TestLogs:
    """The ids of the trace in log lines."""

    async def test_of_the_access_log(self, caplog: pytest.LogCaptureFixture) -> None:
        """As JSON it has the trace."""
        caplog.set_level(logging.INFO)

        async with AppClient(create_app(Settings(ACCESS_LOG="json"))) as client:
            await client.get("/", headers={"traceparent": PARENT})
            await client.get("/")

        lines = [
            json.loads(record.getMessage()) for record in caplog.records if record.name == "ws_web.access"
        ]
        assert [line.get("trace_id") for line in lines] == [TRACE, None]

    async def test_of_a_logging_component(self, publish: Any) -> None:
        """It gets both ids and the request's, also for what is logged after the reply, and by tasks."""
        publish(
            """
            provided = {}

            class Logging:
                name, settings_key, after = "shop log", "SHOP_LOG", ()
                def configure(self, section): pass
                def add_context(self, name, provider): provided[name] = provider
                async def start(self): pass
                async def close(self): pass
                async def health(self): pass
                def status(self): return {}
            """,
            "SHOP_LOG = {module}:Logging",
        )
        app = create_app(Settings(SHOP_LOG={"level": "info"}, ACCESS_LOG="off"))
        provided = __import__(type(app.state.components["SHOP_LOG"]).__module__).provided
        lines: list[dict[str, str]] = []
        done = asyncio.Event()

        def log() -> None:
            lines.append({name: provider() for name, provider in provided.items()})

        async def later() -> None:
            log()
            done.set()

        @app.get("/")
        async def route(tasks: BackgroundTasks) -> None:
            log()
            tasks.add_task(log)
            asyncio.get_running_loop().create_task(later())

        async with AppClient(app) as client:
            await client.get("/", headers={"traceparent": PARENT, "x-request-id": "r"})
            await done.wait()

        assert lines == [{"request_id": "r", "trace_id": TRACE, "span_id": ""}] * 3

    async def test_of_a_span(self, provider: TracerProvider) -> None:
        """OpenTelemetry's present span is what counts."""
        with trace.get_tracer("test", tracer_provider=provider).start_as_current_span("work") as span:
            context = span.get_span_context()
            assert (get_trace_id(), get_span_id()) == (f"{context.trace_id:032x}", f"{context.span_id:016x}")


NATIVE = not server_span.is_needed()
OFF: dict[str, Any] = {"telemetry": {"tracing": False, "metrics": False, "logs": False}} if NATIVE else {}


class TestServerSpan:
    """A span for each request."""

    @pytest.mark.skipif(not NATIVE, reason="FastAPI of this version makes no spans")
    async def test_by_fastapi(self, provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
        """FastAPI makes it, a child of the client's; ours is not made beside it."""
        app = create_app(Settings(OTEL=True, ACCESS_LOG="off"), telemetry={"tracer_provider": provider})

        @app.get("/items/{item}")
        async def route(item: int) -> str:
            return get_trace_id()

        async with AppClient(app) as client:
            assert (await client.get("/items/1", headers={"traceparent": PARENT})).data() == TRACE

        spans = [span for span in exporter.get_finished_spans() if span.kind is trace.SpanKind.SERVER]
        assert [(span.name, f"{span.context.trace_id:032x}") for span in spans] == [
            ("GET /items/{item}", TRACE)
        ]

    async def test_by_us(
        self, provider: TracerProvider, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where FastAPI does not, we do: name, route, status, error; not inside another span."""
        monkeypatch.setattr(server_span, "is_needed", lambda: True)
        monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
        app = create_app(Settings(OTEL=True, ACCESS_LOG="off"), **OFF)

        @app.get("/items/{item}")
        async def route(item: int) -> str:
            if item == 0:
                raise ZeroDivisionError

            return get_trace_id()

        async with AppClient(app) as client:
            assert (await client.get("/items/1", headers={"traceparent": PARENT})).data() == TRACE
            await client.get("/items/0")
            await client.get("/nothing")

            with trace.get_tracer("test", tracer_provider=TracerProvider()).start_as_current_span("client"):
                await client.get("/items/2")

        spans = [
            (span.name, (span.attributes or {}).get("http.route"), (span.attributes or {}).get("error.type"))
            for span in exporter.get_finished_spans()
        ]
        assert spans == [
            ("GET /items/{item}", "/items/{item}", None),
            ("GET /items/{item}", "/items/{item}", "500"),
            ("GET", None, None),
        ]

    async def test_off(self, provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
        """Nothing is recorded when nobody has asked for it."""
        app = create_app(Settings(ACCESS_LOG="off"))
        assert app.server_spans == []

        async with AppClient(app) as client:
            await client.get("/", headers={"traceparent": PARENT})

        assert exporter.get_finished_spans() == ()

    def test_is_needed(self) -> None:
        """FastAPI of this environment makes spans, or ours are needed."""
        assert server_span.is_needed() == (not hasattr(create_app(), "_native_telemetry"))

    async def test_a_broken_instrumentation(self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is named, and the application does not start."""
        monkeypatch.syspath_prepend(str(tmp_path))
        info = tmp_path / "broken-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[wintersweet.otel]\nbroken = builtins:nothing\n")

        with pytest.raises(SettingsError, match="OTEL: builtins:nothing cannot be started: AttributeError"):
            async with AppClient(create_app(Settings(OTEL=True))):
                pass
