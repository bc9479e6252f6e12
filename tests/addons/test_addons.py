"""Popular add-ons of FastAPI do on `create_app` what they do on FastAPI."""

from __future__ import annotations

from typing import Any

import pytest
import sentry_sdk
import sqlalchemy as sa
from asgi_correlation_id import CorrelationIdMiddleware, correlation_id
from fastapi import Request
from fastapi_cache import FastAPICache
from fastapi_cache.backends.inmemory import InMemoryBackend
from fastapi_cache.decorator import cache
from fastapi_pagination import Page, add_pagination, paginate
from fastapi_pagination.utils import disable_installed_extensions_check
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_fastapi_instrumentator import Instrumentator
from pydantic import BaseModel
from sentry_sdk.integrations.logging import ignore_logger
from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded
from slowapi.middleware import SlowAPIMiddleware
from slowapi.util import get_remote_address
from sqladmin import Admin, ModelView
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import StaticPool

from ws_web import create_app
from ws_web.testing import AppClient


class Item(BaseModel):
    """What a route returns."""

    id: int


async def test_fastapi_pagination() -> None:
    """The page stands in the envelope."""
    disable_installed_extensions_check()
    app = create_app()

    @app.get("/items")
    async def items() -> Page[Item]:
        return paginate([Item(id=number) for number in range(30)])

    add_pagination(app)

    async with AppClient(app) as client:
        page = (await client.get("/items?page=2&size=10")).data()

    assert (page["total"], page["items"][0]) == (30, {"id": 10})


@pytest.mark.parametrize("by_middleware", [True, False])
async def test_slowapi(by_middleware: bool) -> None:
    """A request beyond the limit gets 429, by decorator and by middleware."""
    app = create_app()
    limits = ["2/minute"] if by_middleware else []
    limiter = Limiter(key_func=get_remote_address, default_limits=limits)
    app.state.limiter = limiter
    app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)  # type: ignore[arg-type]  # theirs

    async def endpoint(request: Request) -> int:
        return 1

    if by_middleware:
        app.add_middleware(SlowAPIMiddleware)
        app.get("/")(endpoint)
    else:
        app.get("/")(limiter.limit("2/minute")(endpoint))

    async with AppClient(app) as client:
        replies = [await client.get("/") for _ in range(3)]

    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert replies[0].data() == 1


async def test_sqladmin() -> None:
    """Its pages are served as they are, and its redirects are followed by browsers."""

    class Base(DeclarativeBase):
        pass

    class Lamp(Base):
        __tablename__ = "lamps"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]

    engine = create_async_engine("sqlite+aiosqlite:///:memory:", poolclass=StaticPool)

    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(sa.insert(Lamp).values(id=1, name="desk lamp"))

    app = create_app()

    class LampView(ModelView, model=Lamp):  # type: ignore[call-arg]  # of its metaclass
        column_list = [Lamp.id, Lamp.name]  # noqa: RUF012 - as its documentation has it

    Admin(app, engine).add_view(LampView)

    async with AppClient(app) as client:
        listed = await client.get("/admin/lamp/list")
        missing = await client.get("/admin/lamp/details/99")

    await engine.dispose()
    assert (listed.status_code, listed.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "desk lamp" in listed.text
    assert missing.status_code == 404


async def test_prometheus_instrumentator() -> None:
    """It counts requests by the template of their route."""
    app = create_app()

    @app.get("/items/{number}")
    async def item(number: int) -> int:
        return number

    Instrumentator().instrument(app).expose(app)

    async with AppClient(app) as client:
        assert (await client.get("/items/7")).data() == 7
        metrics = (await client.get("/metrics")).text

    assert 'handler="/items/{number}"' in metrics


async def test_fastapi_cache() -> None:
    """What its decorator keeps is put into the envelope of each request."""
    FastAPICache.init(InMemoryBackend(), prefix="test")
    app = create_app()
    calls: list[int] = []

    @app.get("/items")
    @cache(expire=60)
    async def items() -> dict[str, int]:
        calls.append(1)
        return {"n": len(calls)}

    async with AppClient(app) as client:
        replies = [await client.get("/items", headers={"x-request-id": f"r{n}"}) for n in range(3)]

    assert [reply.data() for reply in replies] == [{"n": 1}] * 3
    assert calls == [1]


async def test_asgi_correlation_id() -> None:
    """It sees the same header, and both ids reach the client."""
    app = create_app()
    app.add_middleware(CorrelationIdMiddleware, header_name="X-Correlation-ID")

    @app.get("/")
    async def endpoint() -> Any:
        return correlation_id.get()

    async with AppClient(app) as client:
        reply = await client.get("/")

    assert reply.data() == reply.headers["x-correlation-id"]
    assert reply.headers["x-request-id"] == reply.envelope()["request_id"]


async def test_sentry() -> None:
    """A failure is reported once, with the transaction of its route."""
    events: list[Any] = []

    def keep(event: Any, hint: Any) -> None:
        events.append(event)

    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", before_send=keep)
    ignore_logger("ws_web")  # as the how-to says: its integration reports failures itself
    app = create_app()

    @app.get("/boom/{number}")
    async def boom(number: int) -> None:
        raise ValueError("boom")

    async with AppClient(app) as client:
        assert (await client.get("/boom/1")).status_code == 500

    sentry_sdk.get_client().close(timeout=0)
    sentry_sdk.init()
    failures = [event for event in events if "exception" in event]
    assert [event["exception"]["values"][-1]["value"] for event in failures] == ["boom"]
    assert "boom" in failures[0]["transaction"]


async def test_opentelemetry() -> None:
    """One span for a request, with the template of its route."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = create_app()

    @app.get("/items/{number}")
    async def item(number: int) -> int:
        return number

    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)

    async with AppClient(app) as client:
        assert (await client.get("/items/7")).data() == 7

    spans = [span for span in exporter.get_finished_spans() if span.kind.name == "SERVER"]
    assert [dict(span.attributes or {})["http.route"] for span in spans] == ["/items/{number}"]
