"""Pools in OpenTelemetry: spans of every operation, samples of every pool, and nothing when it is off."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ws_core.metrics import METRICS
from ws_pool import MysqlPool, PostgresPool, SqlitePool, SqlPoolManager
from ws_pool._core import tracing
from ws_pool._redis.client.shared import SharedRedis
from ws_pool._sql.sqlite.connection import SqliteConnection
from ws_pool.errors import IntegrityViolation, UsageError
from ws_pool.events import RedisEventBus, StreamEventBus
from ws_pool.http import HttpPool
from ws_pool.otel import instrument
from ws_pool.redis import RedisPool


class Telemetry:
    """An SDK that keeps what it gets."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    def instrument(self, *sources: Any, **options: Any) -> Any:
        """Instrument with these providers."""
        return instrument(*sources, tracer_provider=self.tracers, meter_provider=self.meters, **options)

    def spans(self) -> list[ReadableSpan]:
        """Take the spans that have ended."""
        found = list(self.exporter.get_finished_spans())
        self.exporter.clear()
        return found

    def points(self) -> dict[str, list[tuple[dict[str, Any], float]]]:
        """Read all metrics."""
        data = self.reader.get_metrics_data()
        return {
            metric.name: [
                (dict(point.attributes or {}), getattr(point, "value", getattr(point, "count", 0)))
                for point in metric.data.data_points
            ]
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """An SDK, shut down afterwards; what an operations page of another test watches is off meanwhile."""
    earlier = tracing.watch(None)
    made = Telemetry()
    yield made
    tracing.stop()
    tracing.watch(earlier)
    made.tracers.shutdown()
    made.meters.shutdown()


def texts(spans: list[ReadableSpan]) -> list[Any]:
    """The statements of spans."""
    return [(span.attributes or {}).get("db.query.text") for span in spans]


class TestSql:
    """Statements."""

    @pytest.fixture(params=["aiomysql", "asyncmy", "sqlite", "asyncpg", "psycopg"])
    def pool(self, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
        """A pool of each driver, not started."""
        if request.param == "sqlite":
            return SqlitePool(f"sqlite:///{tmp_path}/x.db")

        if request.param in {"asyncpg", "psycopg"}:
            return PostgresPool(request.getfixturevalue("postgres_url"), driver=request.param)

        return MysqlPool(request.getfixturevalue("mysql_url"), driver=request.param)

    async def test_each_statement_is_one_span_without_values(self, pool: Any, telemetry: Telemetry):
        """Parameters are not shown, and neither are the literals of a text without parameters."""
        async with pool:
            await pool.execute("DROP TABLE IF EXISTS traced")
            await pool.execute("CREATE TABLE traced (id INTEGER PRIMARY KEY, name VARCHAR(20))")

            with telemetry.instrument():
                await pool.execute("INSERT INTO traced VALUES (:id, :name)", id=1, name="secret")
                await pool.execute("INSERT INTO traced VALUES (27, 'secret')")
                rows = [{"id": n, "name": "secret"} for n in range(100, 150)]
                await pool.insert_many("INSERT INTO traced (id, name) VALUES (:id, :name)", rows)

                for _ in range(15):  # prepared after some runs, where the driver can do that
                    await pool.select("SELECT name FROM traced WHERE id = :id", id=1)

                async with pool.get_client() as client:
                    assert len([row async for row in client.iterate("SELECT * FROM traced")]) == 52

            spans = telemetry.spans()
            await pool.execute("DROP TABLE traced")
            assert not telemetry.spans()

        found = texts(spans)
        assert all(text and "secret" not in text and "27" not in text and "149" not in text for text in found)
        assert sum(text.startswith("SELECT name") for text in found) == 15
        assert sum(text.startswith("SELECT * FROM traced") for text in found) == 1
        assert {span.name for span in spans} >= {"INSERT", "SELECT"}
        systems = {(span.attributes or {})["db.system.name"] for span in spans}
        assert systems in ({"mysql"}, {"sqlite"}, {"postgresql"})

    async def test_the_work_of_the_pool_itself_is_not_traced(self, pool: Any, telemetry: Telemetry):
        """What a pool sends to set a session up belongs to no request: there are no spans of it."""
        with telemetry.instrument():
            async with pool:
                await asyncio.gather(*(pool.select("SELECT 1") for _ in range(3)))
                telemetry.spans()
                pool.expire()
                await pool.select("SELECT 2")
                assert texts(telemetry.spans()) == ["SELECT ?"]

    async def test_an_error_is_named_and_not_quoted(self, pool: Any, telemetry: Telemetry):
        """The type of an error is recorded; its text, which has values in it, is not."""
        async with pool:
            await pool.execute("DROP TABLE IF EXISTS traced")
            await pool.execute("CREATE TABLE traced (name VARCHAR(20) PRIMARY KEY)")
            await pool.execute("INSERT INTO traced VALUES ('secret')")

            with telemetry.instrument(query_text=False), pytest.raises(IntegrityViolation):
                await pool.execute("INSERT INTO traced VALUES (:name)", name="secret")

            await pool.execute("DROP TABLE traced")

        (span,) = (span for span in telemetry.spans() if span.name == "INSERT")
        assert "secret" not in span.to_json()
        assert (span.attributes or {})["error.type"] == "IntegrityViolation"
        assert texts([span]) == [None]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES ('hunter2', 17)",
        'INSERT INTO t VALUES ("hunter2")',
        "INSERT INTO t VALUES ('it''s', 'hunter2')",
        r"INSERT INTO t VALUES ('\', 'hunter2')",  # the first string ends where SQLite says, not MySQL
        r"INSERT INTO t VALUES ('\'', 'hunter2')",
        "INSERT /* it's */ INTO t VALUES ('hunter2')",
        "INSERT INTO t -- it's\nVALUES ('hunter2')",
        "INSERT INTO t # it's\nVALUES ('hunter2')",
        "INSERT INTO `it's` VALUES ('hunter2')",
        "SELECT $tag$hunter2$tag$",
        "INSERT INTO t VALUES ('" + "x" * 3000 + "hunter2')",
        "INSERT INTO t VALUES (" + "1, " * 3000 + "'hunter2')",
    ],
)
def test_literals_are_not_shown(sql: str):
    """Whatever the dialect takes for a string, no literal is in the text of a span."""
    described = tracing.statement("mysql", sql, literal=True)
    shown = str(described.attributes["db.query.text"])
    assert described.name in {"INSERT", "SELECT"}
    assert "hunter" not in shown
    assert "17" not in shown
    assert len(shown) <= 2000


class TestRedis:
    """Commands and pipelines."""

    async def test_commands_and_pipelines(self, redis_url: str, telemetry: Telemetry):
        """Each command, on shared and dedicated connections, and each pipeline is one span."""
        async with RedisPool(url=redis_url) as pool:
            with telemetry.instrument():
                await pool.redis.set("traced", "secret")
                await pool.redis.get("traced")
                await pool.redis.config_get("maxmemory")

                pipe: Any = pool.redis.pipeline(transaction=False)
                await pipe.get("traced").get("traced").execute()

                async with pool.get_client(alone=True) as alone:
                    await alone.delete("traced")

            spans = telemetry.spans()
            await pool.redis.ping()
            assert not telemetry.spans()

        names = [span.name for span in spans]
        assert names == ["SET", "GET", "CONFIG GET", "PIPELINE GET", "DEL"]
        assert (spans[3].attributes or {})["db.operation.batch.size"] == 2
        assert not any("secret" in span.to_json() or "traced" in span.to_json() for span in spans)


class TestHttp:
    """Requests."""

    async def test_a_request_carries_the_trace(self, telemetry: Telemetry):
        """The server gets a traceparent of this trace; the span has the status and no secrets."""
        seen: list[str | None] = []

        async def answer(request: web.Request) -> web.Response:
            seen.append(request.headers.get("traceparent"))
            return web.Response(status=int(request.query["status"]))

        application = web.Application()
        application.router.add_get("/", answer)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        tracer = telemetry.tracers.get_tracer("test")

        async with HttpPool(f"http://127.0.0.1:{port}", raise_for_status=False) as pool:
            with telemetry.instrument(), tracer.start_as_current_span("handler") as parent:
                async with pool.get_client() as http:
                    await http.get("/?status=200&token=hunter2")
                    await http.get("/?status=404")

            async with pool.get_client() as http:
                await http.get("/?status=200")

        await runner.cleanup()
        good, bad, _ = telemetry.spans()
        context = parent.get_span_context()
        assert good.parent is not None
        assert good.parent.span_id == context.span_id
        assert good.context is not None
        assert seen[0] is not None
        assert seen[0].startswith(f"00-{context.trace_id:032x}-{good.context.span_id:016x}-")
        assert seen[2] is None
        assert "hunter2" not in good.to_json()
        assert (good.attributes or {})["http.response.status_code"] == 200
        assert (bad.attributes or {})["error.type"] == "404"
        assert bad.status.status_code is trace.StatusCode.ERROR

    async def test_wrong_input_is_refused_as_without_it(self, telemetry: Telemetry):
        """A value that cannot be sent is a UsageError, whether the request is traced or not."""
        async with HttpPool("http://127.0.0.1:1") as pool:
            wrong: Any  # what a user's mistake may be
            method: Any = ["GET"]

            for wrong in ("x", ["a"]):
                with telemetry.instrument(), pytest.raises(UsageError):
                    await pool.client.get("/", headers=wrong)

                with telemetry.instrument(), pytest.raises(UsageError):
                    await pool.client.request(method, "/")


class TestMetrics:
    """Numbers."""

    async def test_names_and_attributes_are_those_of_the_table(self, redis_url: str, telemetry: Telemetry):
        """What is exported is in `ws_core.metrics`, for pools and for managers, started or not."""
        manager = SqlPoolManager()
        manager.register({"shop": "sqlite:///:memory:"})
        later = SqlPoolManager()

        async with manager, RedisPool(url=redis_url, name="cache") as redis:
            with telemetry.instrument(manager, redis, later):
                await manager.get_pool("shop").select("SELECT 1")
                await redis.redis.ping()
                points = telemetry.points()

        for name, values in points.items():
            metric = (
                METRICS[name.removesuffix(".sum").removesuffix(".count")]
                if name not in METRICS
                else METRICS[name]
            )
            assert all(set(attributes) <= set(metric.attributes) for attributes, _ in values)

        state, pool = "db.client.connection.state", "db.client.connection.pool.name"
        system = "db.system.name"
        cache, shop = {pool: "cache", system: "redis"}, {pool: "shop", system: "sqlite"}
        assert ({**cache, state: "used"}, 1) in points["db.client.connection.count"]
        assert (shop, 1) in points["db.client.connection.max"]
        assert {attributes[system] for attributes, _ in points["db.client.operation.duration"]} == {
            "redis",
            "sqlite",
        }


class TestOff:
    """Nothing is left when it is off."""

    async def test_methods_are_the_classes_own(self, telemetry: Telemetry):
        """Before and after, an operation runs the very function that stands in its class."""
        before = (SqliteConnection.run, SharedRedis.execute_command)
        instrumentation = telemetry.instrument()
        assert SqliteConnection.run is not before[0]
        again = telemetry.instrument()
        again.close()
        instrumentation.close()
        assert (SqliteConnection.run, SharedRedis.execute_command) == before
        assert SqliteConnection.run is before[0]

    async def test_a_stream_left_early_has_not_failed(self, telemetry: Telemetry):
        """A `break` ends the span without an error; a cancelled statement has one."""
        async with SqlitePool("sqlite:///:memory:") as pool:
            await pool.execute("CREATE TABLE t (id INTEGER)")
            await pool.insert_many("INSERT INTO t VALUES (:id)", [{"id": n} for n in range(5000)])

            with telemetry.instrument():
                async with pool.get_client() as client:
                    rows = client.iterate("SELECT id FROM t", size=10)

                    async for _ in rows:
                        break

                    await rows.aclose()

                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await pool.select(
                            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) "
                            "SELECT max(n) FROM c"
                        )

            left, cut = (span for span in telemetry.spans() if span.name in {"SELECT", "WITH"})

        assert "error.type" not in (left.attributes or {})
        assert (cut.attributes or {})["error.type"] == "CancelledError"


class TestEvents:
    """The trace of who publishes goes on where listeners are called."""

    @pytest.mark.parametrize("kind", [RedisEventBus, StreamEventBus])
    async def test_an_event_carries_its_trace(self, redis_url: str, telemetry: Telemetry, kind: Any):
        """A span for the event that is published, one for each call, and what a listener does within it."""
        received = asyncio.Event()

        async with RedisPool(redis_url) as pool:

            async def listen(number: int) -> None:
                await pool.redis.set("sold", number)
                received.set()

            names = ("shop",) if kind is RedisEventBus else ("shop", "group")

            async with kind(pool, *names) as bus:
                bus.add_listener("sale", listen)
                tracer = telemetry.tracers.get_tracer("test")

                with telemetry.instrument():
                    with tracer.start_as_current_span("request") as request:
                        await bus.publish("sale", 1)

                    await received.wait()
                    await bus.close()

        spans = {span.name: span for span in telemetry.spans()}
        sent, processed, inner = spans["send shop"], spans["process shop"], spans["SET"]
        trace_id = request.get_span_context().trace_id
        assert {span.context.trace_id for span in (sent, processed, inner) if span.context} == {trace_id}
        assert (sent.kind, processed.kind) == (trace.SpanKind.PRODUCER, trace.SpanKind.CONSUMER)
        assert sent.context is not None
        assert processed.context is not None
        assert processed.parent is not None
        assert inner.parent is not None
        assert processed.parent.span_id == sent.context.span_id
        assert inner.parent.span_id == processed.context.span_id
        assert dict(processed.attributes or {}) == {
            "messaging.system": "redis",
            "messaging.destination.name": "shop",
            "messaging.operation.type": "process",
            "wintersweet.event.tag": "sale",
        }

    async def test_a_listener_that_fails_marks_its_span(self, redis_url: str, telemetry: Telemetry):
        """The type of its error is recorded, and the next event has a context of its own."""
        received = asyncio.Event()

        async def fail(*, last: bool) -> None:
            if last:
                received.set()

            raise ValueError("secret")

        async with RedisPool(redis_url) as pool, RedisEventBus(pool, "shop") as bus:
            bus.add_listener("sale", fail)

            with telemetry.instrument():
                await bus.publish("sale", last=False)
                await bus.publish("sale", last=True)
                await received.wait()
                await bus.close()

        spans = [span for span in telemetry.spans() if span.name == "process shop"]
        assert [(span.attributes or {}).get("error.type") for span in spans] == ["ValueError"] * 2
        assert len({span.context.trace_id for span in spans if span.context}) == 2

    async def test_an_event_without_a_trace(self, redis_url: str, telemetry: Telemetry):
        """What was published by a process without traces begins one at its listener."""
        received = asyncio.Event()

        async def listen() -> None:
            received.set()

        async with RedisPool(redis_url) as pool, RedisEventBus(pool, "shop") as bus:
            bus.add_listener("sale", listen)

            with telemetry.instrument():
                await pool.redis.publish("shop", '{"tag": "sale", "args": [], "kwargs": {}}')
                await received.wait()
                await bus.close()

        assert next(span for span in telemetry.spans() if span.name == "process shop").parent is None
