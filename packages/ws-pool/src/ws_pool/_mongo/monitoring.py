"""Count what happens to the driver's connections."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pymongo.monitoring import (
    ConnectionCheckedInEvent,
    ConnectionCheckedOutEvent,
    ConnectionCheckOutFailedEvent,
    ConnectionCheckOutStartedEvent,
    ConnectionClosedEvent,
    ConnectionCreatedEvent,
    ConnectionPoolListener,
)

from ws_core.metrics import Sample, sample
from ws_pool._core.statistics import (
    POOL_NAME,
    PREFIX,
    STATE,
    Histogram,
    HistogramBuilder,
    flat,
    plain,
    time_sample,
)

logger = logging.getLogger("ws_pool")

_NEARLY_EXHAUSTED = 0.9  # share of the connections in use from which on there is a warning
_WARN_EVERY = 60.0  # seconds between two warnings


@dataclass(frozen=True, slots=True)
class MongoStatistics:
    """
    The state of a MongoDB pool at one moment, over all servers of its deployment.

    Args:
        name: The pool's name.
        max_size: Most connections at once to one server.
        size: Connections that are open.
        leased: Connections in use.
        waiting: Operations waiting for a connection.
        opened: Connections opened so far.
        closed: Connections closed so far.
        failures: Operations that got no connection.
        wait_time: How long operations waited for a connection.
    """

    name: str
    max_size: int
    size: int
    leased: int
    waiting: int
    opened: int
    closed: int
    failures: int
    wait_time: Histogram

    def samples(self) -> tuple[Sample, ...]:
        """Return the numbers as samples of the metrics in `ws_core.metrics`, with the pool's name."""
        pool = {POOL_NAME: self.name}
        return (
            sample(f"{PREFIX}count", self.size - self.leased, attributes={**pool, STATE: "idle"}),
            sample(f"{PREFIX}count", self.leased, attributes={**pool, STATE: "used"}),
            sample(f"{PREFIX}max", self.max_size, attributes=pool),
            sample(f"{PREFIX}pending_requests", self.waiting, attributes=pool),
            sample(f"{PREFIX}timeouts", self.failures, attributes=pool),
            time_sample(f"{PREFIX}wait_time", self.wait_time, pool),
        )

    def metrics(self) -> Mapping[str, float]:
        """Return the numbers under OpenTelemetry's names; see `ws_pool.pool.PoolStatistics.metrics`."""
        return flat(self.samples())

    def status(self) -> Mapping[str, object]:
        """Return plain numbers and strings, for logs, status pages and `pool_status`."""
        return plain(self, wait_p99=self.wait_time.quantile(0.99))


class CommandMonitor(ConnectionPoolListener):
    """Counts connections and waits. Motor calls it from threads, hence the lock."""

    def __init__(self, name: str, max_size: int, clock: Callable[[], float]) -> None:
        self._name = name
        self._max_size = max_size
        self._clock = clock
        self._lock = threading.Lock()
        self._opened = self._closed = self._requested = self._acquired = self._returned = self._failures = 0
        self._wait_time = HistogramBuilder()
        self._warned = float("-inf")

    def connection_created(self, event: ConnectionCreatedEvent) -> None:
        """Count a connection."""
        with self._lock:
            self._opened += 1

    def connection_closed(self, event: ConnectionClosedEvent) -> None:
        """Count a closed connection."""
        with self._lock:
            self._closed += 1

    def connection_check_out_started(self, event: ConnectionCheckOutStartedEvent) -> None:
        """Count an operation that needs a connection."""
        with self._lock:
            self._requested += 1

    def connection_check_out_failed(self, event: ConnectionCheckOutFailedEvent) -> None:
        """Count an operation that got no connection."""
        with self._lock:
            self._failures += 1

    def connection_checked_out(self, event: ConnectionCheckedOutEvent) -> None:
        """Count an operation that got a connection, and warn when few are left."""
        with self._lock:
            self._acquired += 1
            self._wait_time.record(event.duration or 0.0)
            leased = self._acquired - self._returned
            now = self._clock()
            scarce = 0 < self._max_size * _NEARLY_EXHAUSTED <= leased and now - self._warned >= _WARN_EVERY

            if scarce:
                self._warned = now

        if scarce:
            logger.warning(
                "mongo pool %r is nearly exhausted: %d of %d connections in use",
                self._name,
                leased,
                self._max_size,
            )

    def connection_checked_in(self, event: ConnectionCheckedInEvent) -> None:
        """Count a connection that was returned."""
        with self._lock:
            self._returned += 1

    def _ignore(self, event: object) -> None:
        """Do nothing: these events change none of the counters."""

    pool_created = pool_ready = pool_cleared = pool_closed = connection_ready = _ignore

    def statistics(self) -> MongoStatistics:
        """Return the counters."""
        with self._lock:
            return MongoStatistics(
                name=self._name,
                max_size=self._max_size,
                size=self._opened - self._closed,
                leased=self._acquired - self._returned,
                waiting=self._requested - self._acquired - self._failures,
                opened=self._opened,
                closed=self._closed,
                failures=self._failures,
                wait_time=self._wait_time.snapshot(),
            )
