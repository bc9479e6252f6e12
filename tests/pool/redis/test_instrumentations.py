"""Tracing libraries for redis-py see the commands of our clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from tools.servers import ClusterServers
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool.errors import MaybeExecuted
from ws_pool.redis import RedisPool


@pytest.fixture
def spans() -> Iterator[Any]:
    """Instrument redis-py by OpenTelemetry; return the exporter of its spans."""
    from opentelemetry.instrumentation.redis import RedisInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    RedisInstrumentor().instrument(tracer_provider=provider)
    yield exporter
    RedisInstrumentor().uninstrument()


def names(spans: Any) -> list[str]:
    """Return the names of the spans so far, and forget them."""
    found = [span.name for span in spans.get_finished_spans()]
    spans.clear()
    return found


async def use(redis: Redis) -> None:
    """Send a command, a read twice, a blocking command, and pipelines of both kinds."""
    await redis.set("{t}k", 1)
    assert await redis.get("{t}k") == "1"
    assert await redis.get("{t}k") == "1"
    assert await redis.blpop(["{t}none"], timeout=0.01) is None

    for transaction in (True, False):
        async with redis.pipeline(transaction=transaction) as pipe:
            pipe.incr("{t}k")
            pipe.expire("{t}k", 60)
            assert (await pipe.execute())[1] is True


USED = ["SET", "GET", "GET", "BLPOP", "INCRBY EXPIRE", "INCRBY EXPIRE"]


class TestOpenTelemetry:
    """``opentelemetry-instrumentation-redis``."""

    @pytest.mark.parametrize("cache", [0, 10])
    async def test_a_span_for_each_command(self, redis_url: str, spans: Any, cache: int) -> None:
        """Each command and pipeline is one span, with the server's address and its errors."""
        async with RedisPool(url=redis_url, decode_responses=True, cache=cache) as pool:
            await pool.redis.delete("{t}k")
            names(spans)
            await use(pool.redis)
            first = spans.get_finished_spans()[0]
            assert first.attributes["net.peer.port"] == int(redis_url.rpartition(":")[2].partition("/")[0])
            assert names(spans) == USED

            with pytest.raises(Exception, match="WRONGTYPE"):
                await pool.redis.lpush("{t}k", 1)

            (failed,) = spans.get_finished_spans()
            assert not failed.status.is_ok

    async def test_on_a_cluster(self, cluster_servers: ClusterServers, cluster_url: str, spans: Any) -> None:
        """A cluster's client is seen as well; a command that is split is one span."""
        async with RedisPool(url=cluster_url, cluster=True, decode_responses=True) as pool:
            await pool.redis.delete("{t}k")
            names(spans)
            await use(pool.redis)
            assert names(spans) == USED
            await pool.redis.mset({"a": 1, "b": 2, "c": 3})
            assert names(spans) == ["MSET"]

    async def test_a_session(self, redis_url: str, spans: Any) -> None:
        """A client on a dedicated connection is seen, WATCH included."""
        async with RedisPool(url=redis_url) as pool, pool.get_client(alone=True) as client:
            names(spans)
            await client.client_setname("mine")

            async with client.pipeline() as pipe:
                await pipe.watch("k")
                pipe.multi()
                pipe.set("k", 1)
                await pipe.execute()

            assert names(spans)[:3] == ["CLIENT SETNAME", "WATCH", "SET"]

    async def test_before_and_after(self, redis_url: str, spans: Any) -> None:
        """A client that is older than the instrumentation is seen, and not any more when that has ended."""
        from opentelemetry.instrumentation.redis import RedisInstrumentor

        RedisInstrumentor().uninstrument()

        async with RedisPool(url=redis_url) as pool:
            await pool.redis.ping()
            assert names(spans) == []
            provider = pytest.importorskip("opentelemetry.sdk.trace").TracerProvider()
            RedisInstrumentor().instrument(tracer_provider=provider)
            assert Redis.execute_command is not pool.redis._method
            assert await pool.redis.ping()
            RedisInstrumentor().uninstrument()
            assert Redis.execute_command is pool.redis._method
            assert await pool.redis.ping()


async def test_sentry(redis_url: str) -> None:
    """sentry-sdk records a span for each command and pipeline."""
    import sentry_sdk
    from sentry_sdk.integrations.redis import RedisIntegration

    before = Redis.execute_command, Pipeline.execute, Pipeline.immediate_execute_command
    events: list[Any] = []

    try:
        sentry_sdk.init(
            "http://key@localhost/1",
            traces_sample_rate=1.0,
            integrations=[RedisIntegration()],
            default_integrations=False,
            auto_enabling_integrations=False,
            before_send_transaction=lambda event, _: events.append(event),
        )

        async with RedisPool(url=redis_url, decode_responses=True) as pool:
            with sentry_sdk.start_transaction(name="test"):
                await pool.redis.set("k", 1)

                async with pool.redis.pipeline() as pipe:
                    pipe.get("k")
                    assert await pipe.execute() == ["1"]
    finally:
        sentry_sdk.get_client().close()
        sentry_sdk.get_global_scope().set_client(None)
        Redis.execute_command, Pipeline.execute, Pipeline.immediate_execute_command = before  # type: ignore[method-assign]

    assert [span["op"] for span in events[0]["spans"]] == ["db.redis", "db.redis"]


async def test_errors_are_ours(redis_url: str, spans: Any) -> None:
    """What a client raises is the same with an instrumentation, and is recorded by it."""
    async with RedisPool(url=redis_url) as pool:
        names(spans)
        waiting = pool.redis.incr("k")
        flush = PipelinedConnection._flush

        def flush_and_cut(connection: PipelinedConnection) -> None:
            flush(connection)
            connection.kill("cut")

        PipelinedConnection._flush = flush_and_cut  # type: ignore[method-assign, assignment]

        try:
            with pytest.raises(MaybeExecuted, match="INCR"):
                await waiting
        finally:
            PipelinedConnection._flush = flush  # type: ignore[method-assign]

        assert not spans.get_finished_spans()[0].status.is_ok
