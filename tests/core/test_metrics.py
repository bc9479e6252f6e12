"""The table of metrics: names, kinds, units and attributes are a contract."""

from __future__ import annotations

import re

import pytest

from ws_core.metrics import METRICS, Metric, sample

POOL = ("db.client.connection.pool.name",)
FIXED = {
    "db.client.connection.count": ("gauge", "{connection}", (*POOL, "db.client.connection.state")),
    "db.client.connection.idle.max": ("gauge", "{connection}", POOL),
    "db.client.connection.idle.min": ("gauge", "{connection}", POOL),
    "db.client.connection.max": ("gauge", "{connection}", POOL),
    "db.client.connection.pending_requests": ("gauge", "{request}", POOL),
    "db.client.connection.timeouts": ("counter", "{timeout}", POOL),
    "db.client.connection.create_time": ("histogram", "s", POOL),
    "db.client.connection.wait_time": ("histogram", "s", POOL),
    "db.client.connection.use_time": ("histogram", "s", POOL),
    "db.client.operation.duration": (
        "histogram", "s", ("db.system.name", "db.operation.name", *POOL, "error.type"),
    ),
    "http.client.request.duration": (
        "histogram", "s",
        ("http.request.method", "http.response.status_code", "server.address", "server.port", "error.type"),
    ),
    "http.server.request.duration": (
        "histogram", "s",
        ("http.request.method", "http.response.status_code", "http.route", "url.scheme", "error.type"),
    ),
}  # fmt: skip


def test_published_names_do_not_change():
    """Dashboards and alerts depend on them: a metric may be added, not renamed, and keeps its attributes."""
    found = {name: (metric.kind, metric.unit, metric.attributes) for name, metric in METRICS.items()}
    assert FIXED.items() <= found.items()


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_entries_are_whole(metric: Metric):
    """Names are OpenTelemetry's or ours, histograms have seconds and rising buckets, others none."""
    assert re.fullmatch(r"(db|http|messaging|wintersweet)(\.[a-z][a-z0-9_]*)+", metric.name)
    assert metric.description.endswith(".")
    assert (metric.kind == "histogram") == (metric.unit == "s") == bool(metric.buckets)
    assert list(metric.buckets) == sorted(set(metric.buckets))


def test_a_sample_has_only_what_the_table_allows():
    """An unknown metric or attribute is an error, so that none is exported by accident."""
    found = sample("db.client.connection.max", 3, attributes={POOL[0]: "shop"})
    assert (found.metric.unit, found.attributes) == ("{connection}", ((POOL[0], "shop"),))

    with pytest.raises(KeyError):
        sample("db.client.connections", 1)

    with pytest.raises(ValueError, match="has no attribute path"):
        sample("db.client.connection.max", 1, attributes={"path": "/users/7"})
