"""The names of all metrics, once: what the libraries count is the same on every page that shows it.

Names, units, buckets and attributes are OpenTelemetry's where its semantic conventions have them, and
begin with ``wintersweet.`` elsewhere. Nothing is exported here and nothing imported: a library returns
the numbers from its ``statistics()``, an exporter takes type, unit and description from `METRICS`.

Attributes are bounded: names of pools, locks and tasks, templates of routes, never a path, a key or a
value. Times are in seconds, sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

__all__ = ("METRICS", "Metric", "Sample", "sample")

_OPERATIONS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
_REQUESTS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """
    What a name means.

    Args:
        name: The name, in OpenTelemetry's notation.
        kind: A ``counter`` never falls, a ``gauge`` is a present state, a ``histogram`` has times.
        unit: In UCUM's notation: ``s``, ``By``, or what is counted, as ``{connection}``.
        description: One sentence.
        attributes: The attributes that a value may have.
        buckets: Upper edges of a histogram's buckets.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    description: str
    attributes: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """
    A value of a metric.

    Args:
        metric: What it is a value of.
        value: The number; of a histogram the sum of all times.
        count: How many times a histogram has.
        attributes: Values by attribute.
    """

    metric: Metric
    value: float
    count: int = 0
    attributes: tuple[tuple[str, str], ...] = ()


def sample(name: str, value: float, *, count: int = 0, attributes: Mapping[str, str] | None = None) -> Sample:
    """
    Return a value of a metric that `METRICS` knows.

    Args:
        name: The metric's name.
        value: The number; of a histogram the sum of all times.
        count: How many times a histogram has.
        attributes: Values of the metric's attributes.

    Raises:
        KeyError: The metric is not in the table.
        ValueError: It does not have such an attribute.

    Example:
        >>> sample("db.client.connection.max", 10).metric.unit
        '{connection}'
    """
    metric = METRICS[name]
    given = attributes or {}

    if unknown := given.keys() - set(metric.attributes):
        raise ValueError(f"{name} has no attribute {', '.join(sorted(unknown))}")

    return Sample(metric, value, count, tuple(sorted(given.items())))


def _table(metrics: Iterable[Metric]) -> Mapping[str, Metric]:
    return MappingProxyType({metric.name: metric for metric in metrics})


_POOL: Final = "db.client.connection.pool.name"
_STATE: Final = "db.client.connection.state"

METRICS: Final = _table(
    [
        # Connections of databases: MySQL, SQLite, Redis, MongoDB.
        Metric(
            "db.client.connection.count", "gauge", "{connection}", "Connections by state.", (_POOL, _STATE)
        ),
        Metric("db.client.connection.idle.max", "gauge", "{connection}", "Most idle connections.", (_POOL,)),
        Metric("db.client.connection.idle.min", "gauge", "{connection}", "Connections kept open.", (_POOL,)),
        Metric("db.client.connection.max", "gauge", "{connection}", "Most connections at once.", (_POOL,)),
        Metric(
            "db.client.connection.pending_requests",
            "gauge",
            "{request}",
            "Tasks or commands waiting for a connection.",
            (_POOL,),
        ),
        Metric(
            "db.client.connection.timeouts",
            "counter",
            "{timeout}",
            "Waits for a connection that ended without one.",
            (_POOL,),
        ),
        Metric(
            "db.client.connection.create_time",
            "histogram",
            "s",
            "Time of opening a connection.",
            (_POOL,),
            _OPERATIONS,
        ),
        Metric(
            "db.client.connection.wait_time",
            "histogram",
            "s",
            "Time of waiting for a connection.",
            (_POOL,),
            _OPERATIONS,
        ),
        Metric(
            "db.client.connection.use_time",
            "histogram",
            "s",
            "Time between acquire and release of a connection.",
            (_POOL,),
            _OPERATIONS,
        ),
        # Operations.
        Metric(
            "db.client.operation.duration",
            "histogram",
            "s",
            "Time of a statement or command.",
            ("db.system.name", "db.operation.name", _POOL, "error.type"),
            _OPERATIONS,
        ),
        Metric(
            "http.client.request.duration",
            "histogram",
            "s",
            "Time of a request, its retries included.",
            (
                "http.request.method",
                "http.response.status_code",
                "server.address",
                "server.port",
                "error.type",
            ),
            _REQUESTS,
        ),
        Metric(
            "http.server.request.duration",
            "histogram",
            "s",
            "Time of a request to the application.",
            ("http.request.method", "http.response.status_code", "http.route", "url.scheme", "error.type"),
            _REQUESTS,
        ),
    ]
)
"""Every metric by its name."""
