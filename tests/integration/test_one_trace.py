"""One trace from a request over SQL, Redis, a job, and a request that is made to another service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ws_pool import HttpPool, RedisPool, SqlitePool
from ws_pool.otel import instrument
from ws_tasks import LocalEngine, task
from ws_tasks.otel import instrument as instrument_tasks
from ws_web import Settings, create_app
from ws_web._trace_context import get_trace_id
from ws_web.testing import AppClient

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
REPLY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@task("note")
async def note(item: int) -> str:
    """Return the trace that the job belongs to."""
    return get_trace_id()


class Service:
    """Another service, which takes note of the headers that it is sent."""

    def __init__(self) -> None:
        self.url = ""
        self.headers: list[dict[str, str]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        self.headers.append({line.partition(": ")[0].lower(): line.partition(": ")[2] for line in head[1:]})
        writer.write(REPLY)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def another_service() -> AsyncIterator[Service]:
    """Serve for the length of a block."""
    service = Service()
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    service.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async with server:
        yield service


@asynccontextmanager
async def shop(redis_url: str, **options: Any) -> AsyncIterator[tuple[FastAPI, Service]]:  # Any: of FastAPI
    """Return an application whose route uses everything."""
    app = create_app(Settings(ACCESS_LOG="off"), **options)

    async with (
        another_service() as service,
        SqlitePool("sqlite:///:memory:") as sql,
        RedisPool(url=redis_url) as redis,
        HttpPool(service.url) as http,
        LocalEngine([note]),
    ):

        @app.get("/buy/{item}")
        async def buy(item: int) -> str:
            await sql.select("SELECT 1")
            await redis.redis.ping()
            async with http.get_client() as client:
                await client.get("/pay")

            job = await note.enqueue(item)
            return await job.result()

        yield app, service


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


async def test_one_trace_id(redis_url: str, provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    """Every span has the trace of the client; the other service is sent it, with the span of that request."""
    async with (
        shop(redis_url, telemetry={"tracer_provider": provider}) as (app, service),
        AppClient(app) as client,
    ):
        stop = instrument_tasks(tracer_provider=provider)

        with instrument(tracer_provider=provider):
            reply = await client.get("/buy/1", headers={"traceparent": PARENT, "x-request-id": "order-7"})

        stop()

    spans = exporter.get_finished_spans()
    assert reply.data() == TRACE
    assert {f"{span.context.trace_id:032x}" for span in spans} == {TRACE}
    assert {span.name for span in spans} >= {
        "GET /buy/{item}",
        "SELECT",
        "PING",
        "GET",
        "send note",
        "process note",
    }
    (sent,) = service.headers
    (outgoing,) = [span for span in spans if span.name == "GET"]
    assert sent["traceparent"] == f"00-{TRACE}-{outgoing.context.span_id:016x}-01"
    assert sent["x-request-id"] == "order-7"


async def test_without_opentelemetry(redis_url: str, exporter: InMemorySpanExporter) -> None:
    """Nothing is recorded, and the client's trace is passed on as it came."""
    async with shop(redis_url) as (app, service), AppClient(app) as client:
        reply = await client.get("/buy/1", headers={"traceparent": PARENT, "tracestate": "a=1"})

    assert reply.data() == TRACE
    assert exporter.get_finished_spans() == ()
    (sent,) = service.headers
    assert (sent["traceparent"], sent["tracestate"]) == (PARENT, "a=1")
    assert sent["x-request-id"] == reply.headers["x-request-id"]
