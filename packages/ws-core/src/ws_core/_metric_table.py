"""The table of all metrics; see `ws_core.metrics`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

__all__ = ("METRICS", "Metric")

_OPERATIONS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
_REQUESTS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_LAGS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
# What is counted by powers of two is exported so: other edges would be an estimate.
_POWERS: Final = tuple(2**exponent / 1e6 for exponent in range(7, 25, 2))


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


def _table(metrics: Iterable[Metric]) -> Mapping[str, Metric]:
    return MappingProxyType({metric.name: metric for metric in metrics})


_SYSTEM: Final = "db.system.name"
_POOL: Final = "db.client.connection.pool.name"
_CLIENT: Final = "wintersweet.http.client.name"
_TASK: Final = "wintersweet.task.name"
_STATE: Final = "db.client.connection.state"

METRICS: Final = _table(
    [
        # Connections of databases: MySQL, SQLite, Redis, MongoDB.
        Metric(
            "db.client.connection.count",
            "gauge",
            "{connection}",
            "Connections by state.",
            (_SYSTEM, _POOL, _STATE),
        ),
        Metric(
            "db.client.connection.idle.max",
            "gauge",
            "{connection}",
            "Most idle connections.",
            (_SYSTEM, _POOL),
        ),
        Metric(
            "db.client.connection.idle.min",
            "gauge",
            "{connection}",
            "Connections kept open.",
            (_SYSTEM, _POOL),
        ),
        Metric(
            "db.client.connection.max", "gauge", "{connection}", "Most connections at once.", (_SYSTEM, _POOL)
        ),
        Metric(
            "db.client.connection.pending_requests",
            "gauge",
            "{request}",
            "Tasks or commands waiting for a connection.",
            (_SYSTEM, _POOL),
        ),
        Metric(
            "db.client.connection.timeouts",
            "counter",
            "{timeout}",
            "Waits for a connection that ended without one.",
            (_SYSTEM, _POOL),
        ),
        Metric(
            "db.client.connection.create_time",
            "histogram",
            "s",
            "Time of opening a connection.",
            (_SYSTEM, _POOL),
            _POWERS,
        ),
        Metric(
            "db.client.connection.wait_time",
            "histogram",
            "s",
            "Time of waiting for a connection.",
            (_SYSTEM, _POOL),
            _POWERS,
        ),
        Metric(
            "db.client.connection.use_time",
            "histogram",
            "s",
            "Time between acquire and release of a connection.",
            (_SYSTEM, _POOL),
            _POWERS,
        ),
        # Operations.
        Metric(
            "db.client.operation.duration",
            "histogram",
            "s",
            "Time of a statement or command.",
            (_SYSTEM, "db.operation.name", _POOL, "error.type"),
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
        Metric(
            "http.server.active_requests",
            "gauge",
            "{request}",
            "Requests to the application that are under way.",
            ("http.request.method", "url.scheme"),
        ),
        # HTTP clients.
        Metric(
            "http.client.open_connections",
            "gauge",
            "{connection}",
            "Connections to servers by state.",
            (_CLIENT, "http.connection.state"),
        ),
        Metric(
            "http.client.active_requests", "gauge", "{request}", "Requests that are under way.", (_CLIENT,)
        ),
        Metric(
            "wintersweet.http.client.time",
            "histogram",
            "s",
            "Time of a request of a pool, its retries included.",
            (_CLIENT,),
            _POWERS,
        ),
        Metric(
            "wintersweet.http.client.retries", "counter", "{retry}", "Attempts after the first.", (_CLIENT,)
        ),
        Metric(
            "wintersweet.http.client.failures",
            "counter",
            "{request}",
            "Requests without a complete answer.",
            (_CLIENT,),
        ),
        # Messages.
        Metric(
            "messaging.client.consumed.messages",
            "counter",
            "{message}",
            "Messages that were delivered to the application.",
            ("messaging.system", "messaging.destination.name", "messaging.consumer.group.name"),
        ),
        Metric(
            "wintersweet.messaging.undelivered",
            "counter",
            "{message}",
            "Messages without a listener, dead letters, and interruptions of a subscription.",
            ("messaging.system", "messaging.destination.name", "wintersweet.reason"),
        ),
        # Locks; their names may be as many as there are items, and are left out.
        Metric("wintersweet.lock.wait", "histogram", "s", "Time until a lock was acquired.", (), _OPERATIONS),
        Metric("wintersweet.lock.hold", "histogram", "s", "Time for which a lock was held.", (), _OPERATIONS),
        Metric("wintersweet.lock.contended", "counter", "{acquisition}", "Acquisitions that had to wait."),
        Metric(
            "wintersweet.lock.not_acquired",
            "counter",
            "{acquisition}",
            "Acquisitions that ended without the lock.",
        ),
        Metric("wintersweet.lock.lost", "counter", "{lock}", "Locks that ended before their release."),
        # Tasks and jobs.
        Metric(
            "wintersweet.task.runs",
            "counter",
            "{run}",
            "Runs that have ended, by outcome.",
            (_TASK, "wintersweet.task.outcome"),
        ),
        Metric(
            "wintersweet.task.misfires",
            "counter",
            "{run}",
            "Nominal times without a run, by reason.",
            (_TASK, "wintersweet.reason"),
        ),
        Metric(
            "wintersweet.task.lateness",
            "histogram",
            "s",
            "Time by which runs began late; sum and count only.",
            (_TASK,),
            _LAGS,
        ),
        Metric("wintersweet.task.running", "gauge", "{run}", "Runs that are under way.", (_TASK,)),
        Metric("wintersweet.task.queued", "gauge", "{run}", "Runs that wait for an earlier one.", (_TASK,)),
        # The rest of the house.
        Metric(
            "wintersweet.log.lines",
            "counter",
            "{line}",
            "Lines for files by what became of them.",
            ("wintersweet.log.state",),
        ),
        Metric("wintersweet.log.pending", "gauge", "{line}", "Lines that wait for the disk."),
        Metric(
            "wintersweet.cache.requests",
            "counter",
            "{request}",
            "Calls of cached functions by what answered them.",
            ("wintersweet.cache.result",),
        ),
        Metric("wintersweet.cache.errors", "counter", "{error}", "Failures of a cache's store or lock."),
        Metric("wintersweet.websocket.connections", "gauge", "{connection}", "Open WebSockets."),
        Metric(
            "wintersweet.event_loop.lag",
            "histogram",
            "s",
            "Time by which the event loop ran callbacks too late.",
            (),
            _LAGS,
        ),
    ]
)
"""Every metric by its name."""
