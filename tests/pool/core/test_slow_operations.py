"""Slow statements, kept while somebody watches, without their values and beside a tracer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ws_core.inspection import published
from ws_core.metrics import collect
from ws_pool import SqlitePool
from ws_pool._core import tracing
from ws_pool._core.operation import Operation
from ws_pool._core.slow_operations import SlowOperations
from ws_pool.redis import RedisPool


@pytest.fixture
def slow() -> Iterator[SlowOperations]:
    """What keeps every operation, however fast."""
    found = SlowOperations(limit=0.0)
    before = tracing.watch(found)
    yield found
    tracing.watch(before)


async def test_a_statement(slow: SlowOperations) -> None:
    """Its text, time and database, never a value; newest first."""
    async with SqlitePool("sqlite:///:memory:") as pool:
        await pool.select("SELECT 'secret' AS one")
        await pool.select("SELECT 2 AS two")

    assert slow in published("slow statements")
    last, before = slow.inspect()[:2]
    assert (last["text"], before["text"], last["system"]) == ("SELECT ? AS two", "SELECT ? AS one", "sqlite")
    assert isinstance(last["seconds"], float)


async def test_a_failure(slow: SlowOperations) -> None:
    """Its error is named."""
    async with SqlitePool("sqlite:///:memory:") as pool:
        with pytest.raises(Exception, match="nothing"):
            await pool.select("SELECT * FROM nothing")

    assert slow.inspect()[0]["error"]


async def test_times_are_metrics(slow: SlowOperations) -> None:
    """By system, operation and error, in bounded words, whether fast or slow."""
    async with SqlitePool("sqlite:///:memory:") as pool:
        await pool.select("SELECT 1 AS one")
        await pool.select("SELECT 2 AS one")

        with pytest.raises(Exception, match="nothing"):
            await pool.select("SELECT * FROM nothing")

    slow.end(
        Operation("GET", {"http.request.method": "GET"}, "http.client.request.duration"),
        0.2,
        None,
        {"http.response.status_code": 503},
    )
    slow.end(Operation("publish", {}, ""), 0.2, None)  # has no time of its own
    found = {
        (one.metric.name, attributes.get("error.type", "")): (one.count, attributes)
        for one in collect(slow)
        if (attributes := dict(one.attributes))
    }
    count, attributes = found.pop(("db.client.operation.duration", ""))
    assert (count, attributes["db.system.name"], attributes["db.operation.name"]) == (2, "sqlite", "SELECT")
    assert found.pop(("http.client.request.duration", "503"))[0] == 1
    [((name, error), (failures, _))] = found.items()
    assert (name, failures) == ("db.client.operation.duration", 1)
    assert error.isidentifier()


def test_fast_ones_are_not_kept() -> None:
    """Below a tenth of a second nothing is kept."""
    slow = SlowOperations()
    slow.end(Operation("PING", {}), 0.09, None)
    slow.end(Operation("PING", {}), 0.11, None)
    assert [one["text"] for one in slow.inspect()] == ["PING"]


async def test_a_blocking_command_is_not_slow(slow: SlowOperations, redis_url: str) -> None:
    """It waits for something to come, and does not crowd out what is slow; its time is counted."""
    async with RedisPool(url=redis_url) as pool:
        await pool.redis.blpop("{t}none", timeout=0.01)
        await pool.redis.xread({"{t}stream": "$"}, block=10)
        await pool.redis.xread({"{t}stream": "0"})  # does not wait
        await pool.redis.get("{t}none")

    assert [one["text"] for one in slow.inspect()] == ["GET", "XREAD"]
    counted = {dict(found.attributes)["db.operation.name"]: found.count for found in slow.samples()}
    assert counted == {"BLPOP": 1, "XREAD": 2, "GET": 1}


class Tracer:
    """Notes operations."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def begin(self, operation: Operation) -> Any:
        """Note one; it is its own span."""
        self.names.append(operation.name)
        return self

    def headers(self) -> dict[str, str]:
        """Return a header."""
        return {"traceparent": "x"}

    def end(self, error: BaseException | None, attributes: Any) -> None:
        """End."""


async def test_beside_a_tracer(slow: SlowOperations) -> None:
    """Both notice an operation; the headers are the tracer's; each ends alone."""
    tracer = Tracer()
    before = tracing._state.tracer
    tracing.start(tracer)

    try:
        span = tracing._combined(tracing._state.tracers).begin(Operation("GET", {}))
        assert span.headers() == {"traceparent": "x"}
        span.end(None, {})

        async with SqlitePool("sqlite:///:memory:") as pool:
            await pool.select("SELECT 1 AS one")
            assert tracer.names == ["GET", "SELECT"]
            tracing.stop()
            await pool.select("SELECT 1 AS two")
    finally:
        tracing._state.tracer = before
        tracing.watch(slow)

    assert tracer.names == ["GET", "SELECT"]
    assert [one["text"] for one in slow.inspect()[:2]] == ["SELECT ? AS two", "SELECT ? AS one"]
