"""The table of metrics: names, kinds, units and attributes are a contract."""

from __future__ import annotations

import re

import pytest

from ws_core.errors import ClosedError
from ws_core.metrics import (
    METRICS,
    Metric,
    Sample,
    TimeRecorder,
    collect,
    merge,
    register,
    sample,
    unregister,
)

POOL = "db.client.connection.pool.name"
FIXED = {
    "db.client.connection.count": (
        "gauge",
        "{connection}",
        ("db.system.name", "db.client.connection.pool.name", "db.client.connection.state"),
    ),
    "db.client.connection.idle.max": (
        "gauge",
        "{connection}",
        ("db.system.name", "db.client.connection.pool.name"),
    ),
    "db.client.connection.idle.min": (
        "gauge",
        "{connection}",
        ("db.system.name", "db.client.connection.pool.name"),
    ),
    "db.client.connection.max": (
        "gauge",
        "{connection}",
        ("db.system.name", "db.client.connection.pool.name"),
    ),
    "db.client.connection.pending_requests": (
        "gauge",
        "{request}",
        ("db.system.name", "db.client.connection.pool.name"),
    ),
    "db.client.connection.timeouts": (
        "counter",
        "{timeout}",
        ("db.system.name", "db.client.connection.pool.name"),
    ),
    "db.client.connection.create_time": (
        "histogram",
        "s",
        ("db.system.name", "db.client.connection.pool.name"),
    ),
    "db.client.connection.wait_time": (
        "histogram",
        "s",
        ("db.system.name", "db.client.connection.pool.name"),
    ),
    "db.client.connection.use_time": ("histogram", "s", ("db.system.name", "db.client.connection.pool.name")),
    "db.client.operation.duration": (
        "histogram",
        "s",
        ("db.system.name", "db.operation.name", "db.client.connection.pool.name", "error.type"),
    ),
    "http.client.request.duration": (
        "histogram",
        "s",
        ("http.request.method", "http.response.status_code", "server.address", "server.port", "error.type"),
    ),
    "http.server.request.duration": (
        "histogram",
        "s",
        ("http.request.method", "http.response.status_code", "http.route", "url.scheme", "error.type"),
    ),
    "http.server.active_requests": ("gauge", "{request}", ("http.request.method", "url.scheme")),
    "http.client.open_connections": (
        "gauge",
        "{connection}",
        ("wintersweet.http.client.name", "http.connection.state"),
    ),
    "http.client.active_requests": ("gauge", "{request}", ("wintersweet.http.client.name",)),
    "wintersweet.http.client.time": ("histogram", "s", ("wintersweet.http.client.name",)),
    "wintersweet.http.client.retries": ("counter", "{retry}", ("wintersweet.http.client.name",)),
    "wintersweet.http.client.failures": ("counter", "{request}", ("wintersweet.http.client.name",)),
    "messaging.client.consumed.messages": (
        "counter",
        "{message}",
        ("messaging.system", "messaging.destination.name", "messaging.consumer.group.name"),
    ),
    "wintersweet.messaging.undelivered": (
        "counter",
        "{message}",
        ("messaging.system", "messaging.destination.name", "wintersweet.reason"),
    ),
    "wintersweet.lock.wait": ("histogram", "s", ()),
    "wintersweet.lock.hold": ("histogram", "s", ()),
    "wintersweet.lock.contended": ("counter", "{acquisition}", ()),
    "wintersweet.lock.not_acquired": ("counter", "{acquisition}", ()),
    "wintersweet.lock.lost": ("counter", "{lock}", ()),
    "wintersweet.task.runs": ("counter", "{run}", ("wintersweet.task.name", "wintersweet.task.outcome")),
    "wintersweet.task.misfires": ("counter", "{run}", ("wintersweet.task.name", "wintersweet.reason")),
    "wintersweet.task.lateness": ("histogram", "s", ("wintersweet.task.name",)),
    "wintersweet.task.running": ("gauge", "{run}", ("wintersweet.task.name",)),
    "wintersweet.task.queued": ("gauge", "{run}", ("wintersweet.task.name",)),
    "wintersweet.log.lines": ("counter", "{line}", ("wintersweet.log.state",)),
    "wintersweet.log.pending": ("gauge", "{line}", ()),
    "wintersweet.cache.requests": ("counter", "{request}", ("wintersweet.cache.result",)),
    "wintersweet.cache.errors": ("counter", "{error}", ()),
    "wintersweet.websocket.connections": ("gauge", "{connection}", ()),
    "wintersweet.event_loop.lag": ("histogram", "s", ()),
}


def test_published_names_do_not_change() -> None:
    """Dashboards and alerts depend on names, units and attributes: what is changed or added stands here."""
    found = {name: (metric.kind, metric.unit, metric.attributes) for name, metric in METRICS.items()}
    assert found == FIXED


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_entries_are_whole(metric: Metric):
    """Names are OpenTelemetry's or ours, histograms have seconds and rising buckets, others none."""
    assert re.fullmatch(r"(db|http|messaging|wintersweet)(\.[a-z][a-z0-9_]*)+", metric.name)
    assert metric.description.endswith(".")
    assert (metric.kind == "histogram") == (metric.unit == "s") == bool(metric.buckets)
    assert list(metric.buckets) == sorted(set(metric.buckets))


def test_a_sample_has_only_what_the_table_allows():
    """An unknown metric or attribute is an error, so that none is exported by accident."""
    found = sample("db.client.connection.max", 3, attributes={POOL: "shop"})
    assert (found.metric.unit, found.attributes) == ("{connection}", ((POOL, "shop"),))

    with pytest.raises(KeyError):
        sample("db.client.connections", 1)

    with pytest.raises(ValueError, match="has no attribute path"):
        sample("db.client.connection.max", 1, attributes={"path": "/users/7"})

    with pytest.raises(ValueError, match="has 9 buckets and one beyond, not 2"):
        sample("wintersweet.lock.wait", 1.0, count=2, buckets=(1, 1))


class Door:
    """An object that counts."""

    def __init__(self, *samples: Sample) -> None:
        self._samples = samples

    def statistics(self) -> Door:
        """Return itself, or an error when there is nothing to return."""
        if not self._samples:
            raise ClosedError("the door is closed")

        return self

    def samples(self) -> tuple[Sample, ...]:
        """Return what it was made with."""
        return self._samples


def test_registered_objects_are_collected_while_they_live() -> None:
    """With their attributes, where a metric has them; one without numbers is left out."""
    first = Door(
        sample("db.client.connection.max", 3, attributes={POOL: "shop"}), sample("wintersweet.log.pending", 1)
    )
    second = Door(sample("db.client.connection.max", 4, attributes={POOL: "shop"}))
    closed = Door()
    register(first, db_system_name="mysql")
    register(second, db_system_name="redis")
    register(closed)
    labels = {
        (found.value, found.attributes) for found in collect() if found.metric.name.endswith("connection.max")
    }
    assert labels >= {
        (3, ((POOL, "shop"), ("db.system.name", "mysql"))),
        (4, ((POOL, "shop"), ("db.system.name", "redis"))),
    }
    assert [found.value for found in collect(first)] == [3, 1]
    unregister(second)
    assert (POOL, "shop") in dict.fromkeys(found for one in collect() for found in one.attributes)
    assert 4 not in [found.value for found in collect() if found.metric.name.endswith("connection.max")]


def test_sums() -> None:
    """Values, counts and buckets of the same metric and attributes are summed, others are not."""
    times = [TimeRecorder("wintersweet.lock.wait") for _ in range(2)]

    for one, seconds in zip((*times, times[0]), (0.0005, 0.5, 60.0), strict=True):
        one.record(seconds)

    (found,) = merge([*times[0].samples(), *times[1].samples()])
    assert (found.value, found.count, found.buckets) == (60.5005, 3, (1, 0, 0, 0, 0, 1, 0, 0, 0, 1))
    bare = Sample(found.metric, 1.0, 1)
    assert merge([bare, found])[0].buckets == found.buckets
    names = {"wintersweet.task.name": "a"}, {"wintersweet.task.name": "b"}
    assert len(merge([sample("wintersweet.task.running", 1, attributes=name) for name in names])) == 2


def test_times_have_the_attributes_that_are_not_empty() -> None:
    """They are given in the order of the table."""
    times = TimeRecorder("http.server.request.duration")
    times.record(0.1, "GET", "404", "", "http", "")
    (found,) = times.samples()
    assert dict(found.attributes) == {
        "http.request.method": "GET",
        "http.response.status_code": "404",
        "url.scheme": "http",
    }
