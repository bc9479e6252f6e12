"""What pools, caches and buses count, as samples of `ws_core.metrics`."""

from __future__ import annotations

import math

import pytest

from ws_core.metrics import Sample, collect
from ws_pool import HttpPool, ShareCache, SqlitePool
from ws_pool._core.statistics import HistogramBuilder, summed, time_sample
from ws_pool._events.pubsub_bus import BusStatistics
from ws_pool._events.stream_bus import StreamBusStatistics


def labels(samples: tuple[Sample, ...]) -> dict[tuple[str, ...], float]:
    """Return the values by name and values of attributes."""
    return {(one.metric.name, *(value for _, value in one.attributes)): one.value for one in samples}


def test_buckets_are_exact() -> None:
    """The edges are powers of two, as those of the pool's own histogram: nothing is estimated."""
    times = HistogramBuilder()
    found = time_sample("db.client.connection.wait_time", times.snapshot(), {})
    edges = found.metric.buckets

    for edge in edges:
        times.record(edge - 1e-6)
        times.record(edge + 1e-6)

    found = time_sample("db.client.connection.wait_time", times.snapshot(), {})
    assert found.buckets == (1, *[2] * (len(edges) - 1), 1)
    assert found.count == sum(found.buckets) == 2 * len(edges)
    assert math.isclose(found.value, 2 * sum(edges))


def test_parts_of_a_pool_are_summed_with_their_buckets() -> None:
    """Two nodes are one pool."""
    times = HistogramBuilder()
    times.record(0.001)
    nodes = [
        time_sample(
            "db.client.connection.wait_time", times.snapshot(), {"db.client.connection.pool.name": name}
        )
        for name in ("cache/a", "cache/b")
    ]
    (found,) = summed(nodes, "cache")
    assert (found.count, sum(found.buckets), found.attributes) == (
        2,
        2,
        (("db.client.connection.pool.name", "cache"),),
    )


async def test_pools_of_a_process() -> None:
    """Two pools of one name differ by their systems, and one that is not started has its limits."""
    pool = SqlitePool("sqlite:///:memory:", name="test_metrics")

    async with pool:
        await pool.select("SELECT 1")
        found = labels(tuple(one for one in collect() if "test_metrics" in dict(one.attributes).values()))

    assert found["db.client.connection.count", "test_metrics", "idle", "sqlite"] == 1
    assert found["db.client.connection.max", "test_metrics", "sqlite"] == 1


async def test_http() -> None:
    """Requests, connections, retries and failures by the pool's name."""
    async with HttpPool("http://127.0.0.1:9", name="test_metrics") as pool:
        found = labels(collect(pool))

    assert found["wintersweet.http.client.failures", "test_metrics"] == 0
    assert found["http.client.open_connections", "idle", "test_metrics"] == 0


async def test_caches() -> None:
    """Hits and misses of all caches together."""
    cache = ShareCache("test_metrics")

    @cache
    async def one() -> int:
        return 1

    await one()
    await one()
    found = labels(collect(cache))
    assert found["wintersweet.cache.requests", "hit"] == 1
    assert found["wintersweet.cache.requests", "miss"] == 1
    assert found["wintersweet.cache.errors",] == 0


@pytest.mark.parametrize(
    ("statistics", "expected"),
    [
        (
            BusStatistics("news", True, 5, 1, 2, ()),
            {
                ("messaging.client.consumed.messages", "news", "redis"): 5,
                ("wintersweet.messaging.undelivered", "news", "redis", "unknown"): 1,
                ("wintersweet.messaging.undelivered", "news", "redis", "gap"): 2,
            },
        ),
        (
            StreamBusStatistics("orders", "mail", "me", 0, 5, 1, 0, 0, 0, 2),
            {
                ("messaging.client.consumed.messages", "mail", "orders", "redis"): 5,
                ("wintersweet.messaging.undelivered", "orders", "redis", "ignored"): 1,
                ("wintersweet.messaging.undelivered", "orders", "redis", "dead"): 2,
            },
        ),
    ],
    ids=["pubsub", "stream"],
)
def test_buses(
    statistics: BusStatistics | StreamBusStatistics, expected: dict[tuple[str, ...], float]
) -> None:
    """Messages that were delivered, and those that were not, by their reason."""
    assert labels(statistics.samples()) == expected
