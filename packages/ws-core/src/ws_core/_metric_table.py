"""The table of all metrics; see `ws_core.metrics`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

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


def _gauge(name: str, unit: str, description: str, attributes: tuple[str, ...] = ()) -> Metric:
    return Metric(name, "gauge", unit, description, attributes)


def _counter(name: str, unit: str, description: str, attributes: tuple[str, ...] = ()) -> Metric:
    return Metric(name, "counter", unit, description, attributes)


def _times(name: str, description: str, attributes: tuple[str, ...], buckets: tuple[float, ...]) -> Metric:
    return Metric(name, "histogram", "s", description, attributes, buckets)


def _table(metrics: Iterable[Metric]) -> Mapping[str, Metric]:
    return MappingProxyType({metric.name: metric for metric in metrics})


_SYSTEM: Final = "db.system.name"
_POOL: Final = "db.client.connection.pool.name"
_IN_POOL: Final = (_SYSTEM, _POOL)
_CLIENT: Final = "wintersweet.http.client.name"
_TASK: Final = "wintersweet.task.name"
_STATE: Final = "db.client.connection.state"

METRICS: Final = _table(
    [
        # Connections of databases: MySQL, SQLite, Redis, MongoDB.
        _gauge(
            "db.client.connection.count", "{connection}", "Connections by state.", (_SYSTEM, _POOL, _STATE)
        ),
        _gauge("db.client.connection.idle.max", "{connection}", "Most idle connections.", _IN_POOL),
        _gauge("db.client.connection.idle.min", "{connection}", "Connections kept open.", _IN_POOL),
        _gauge("db.client.connection.max", "{connection}", "Most connections at once.", _IN_POOL),
        _gauge(
            "db.client.connection.pending_requests",
            "{request}",
            "Tasks or commands waiting for a connection.",
            _IN_POOL,
        ),
        _counter(
            "db.client.connection.timeouts",
            "{timeout}",
            "Waits for a connection that ended without one.",
            _IN_POOL,
        ),
        _times("db.client.connection.create_time", "Time of opening a connection.", _IN_POOL, _POWERS),
        _times("db.client.connection.wait_time", "Time of waiting for a connection.", _IN_POOL, _POWERS),
        _times(
            "db.client.connection.use_time",
            "Time between acquire and release of a connection.",
            _IN_POOL,
            _POWERS,
        ),
        # Operations.
        _times(
            "db.client.operation.duration",
            "Time of a statement or command.",
            (_SYSTEM, "db.operation.name", _POOL, "error.type"),
            _OPERATIONS,
        ),
        _times(
            "http.client.request.duration",
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
        _times(
            "http.server.request.duration",
            "Time of a request to the application.",
            ("http.request.method", "http.response.status_code", "http.route", "url.scheme", "error.type"),
            _REQUESTS,
        ),
        _gauge(
            "http.server.active_requests",
            "{request}",
            "Requests to the application that are under way.",
            ("http.request.method", "url.scheme"),
        ),
        # HTTP clients.
        _gauge(
            "http.client.open_connections",
            "{connection}",
            "Connections to servers by state.",
            (_CLIENT, "http.connection.state"),
        ),
        _gauge("http.client.active_requests", "{request}", "Requests that are under way.", (_CLIENT,)),
        _times(
            "wintersweet.http.client.time",
            "Time of a request of a pool, its retries included.",
            (_CLIENT,),
            _POWERS,
        ),
        _counter("wintersweet.http.client.retries", "{retry}", "Attempts after the first.", (_CLIENT,)),
        _counter(
            "wintersweet.http.client.failures", "{request}", "Requests without a complete answer.", (_CLIENT,)
        ),
        # Messages.
        _counter(
            "messaging.client.consumed.messages",
            "{message}",
            "Messages that were delivered to the application.",
            ("messaging.system", "messaging.destination.name", "messaging.consumer.group.name"),
        ),
        _counter(
            "wintersweet.messaging.undelivered",
            "{message}",
            "Messages without a listener, dead letters, and interruptions of a subscription.",
            ("messaging.system", "messaging.destination.name", "wintersweet.reason"),
        ),
        # Locks; their names may be as many as there are items, and are left out.
        _times("wintersweet.lock.wait", "Time until a lock was acquired.", (), _OPERATIONS),
        _times("wintersweet.lock.hold", "Time for which a lock was held.", (), _OPERATIONS),
        _counter("wintersweet.lock.contended", "{acquisition}", "Acquisitions that had to wait."),
        _counter(
            "wintersweet.lock.not_acquired", "{acquisition}", "Acquisitions that ended without the lock."
        ),
        _counter("wintersweet.lock.lost", "{lock}", "Locks that ended before their release."),
        # Tasks and jobs.
        _counter(
            "wintersweet.task.runs",
            "{run}",
            "Runs that have ended, by outcome.",
            (_TASK, "wintersweet.task.outcome"),
        ),
        _counter(
            "wintersweet.task.misfires",
            "{run}",
            "Nominal times without a run, by reason.",
            (_TASK, "wintersweet.reason"),
        ),
        _times(
            "wintersweet.task.lateness", "Time by which runs began late; sum and count only.", (_TASK,), _LAGS
        ),
        _gauge("wintersweet.task.running", "{run}", "Runs that are under way.", (_TASK,)),
        _gauge("wintersweet.task.queued", "{run}", "Runs that wait for an earlier one.", (_TASK,)),
        # The rest of the house.
        _counter(
            "wintersweet.log.lines",
            "{line}",
            "Lines for files by what became of them.",
            ("wintersweet.log.state",),
        ),
        _gauge("wintersweet.log.pending", "{line}", "Lines that wait for the disk."),
        _counter(
            "wintersweet.cache.requests",
            "{request}",
            "Calls of cached functions by what answered them.",
            ("wintersweet.cache.result",),
        ),
        _counter("wintersweet.cache.errors", "{error}", "Failures of a cache's store or lock."),
        _gauge("wintersweet.websocket.connections", "{connection}", "Open WebSockets."),
        _times(
            "wintersweet.event_loop.lag", "Time by which the event loop ran callbacks too late.", (), _LAGS
        ),
    ]
)
"""Every metric by its name."""
