"""Statistics of a Redis pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from ws_core.metrics import Sample, sample
from ws_pool._core.statistics import (
    POOL_NAME,
    PREFIX,
    STATE,
    Histogram,
    PoolStatistics,
    flat,
    summed,
    time_sample,
)

# What is summed over all connections, and over the pools of dedicated ones.
_SHARED: Final = (
    "in_line",
    "in_flight",
    "queued",
    "bytes_in_line",
    "commands",
    "dropped",
    "connects",
    "losses",
    "timeouts",
)
_DEDICATED: Final = (
    "size",
    "max_size",
    "idle",
    "leased",
    "waiting",
    "opened",
    "closed",
    "timeouts",
    "failures",
)


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """The state of one shared connection."""

    endpoint: str  # where it is connected to, or tries to
    connected: bool
    in_line: int  # pending commands: those not written yet, and those in flight
    in_flight: int  # commands that were sent and have no reply yet
    queued: int  # commands in front of a connection that is full or lost
    bytes_in_line: int  # of heavy commands, pending and queued
    commands: int  # replies so far
    dropped: int  # replies whose caller was cancelled
    connects: int
    losses: int  # connections that were lost
    down: str  # why there is no open connection; empty when there is one
    timeouts: int  # commands that found no room, or not in time
    create_time: Histogram  # how long opening a connection took
    wait_time: Histogram  # how long queued commands waited until they were sent

    @property
    def pending(self) -> int:
        """Commands without a reply; another name of ``in_line``."""
        return self.in_line


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """
    What became of reads that could be cached.

    Args:
        entries: Replies kept now.
        hits: Reads answered from here.
        misses: Reads that went to the server.
        invalidations: Keys whose change the server has reported.
        flushes: Times everything was dropped, such as after a lost connection.
    """

    entries: int
    hits: int
    misses: int
    invalidations: int
    flushes: int


@dataclass(frozen=True, slots=True)
class RedisStatistics:
    """
    The state of a Redis pool at one moment.

    Args:
        name: The pool's name.
        shared: The shared connections.
        leased: The dedicated connections of each node.
        cache: The client-side cache, or None without one.
    """

    name: str
    shared: tuple[ConnectionStatistics, ...]
    leased: tuple[PoolStatistics, ...]
    cache: CacheStatistics | None = None

    @property
    def dedicated(self) -> tuple[PoolStatistics, ...]:
        """The dedicated connections of each node; another name of ``leased``."""
        return self.leased

    def metrics(self) -> Mapping[str, float]:
        """
        Return the numbers under the names of OpenTelemetry's ``db.client.connection.*`` conventions.

        A shared connection counts as one that is used; a command that is queued counts as a pending
        request. Times of use are those of dedicated connections: a shared one is always in use.

        Returns:
            Metric names, with their attribute in braces, to values, as `ws_pool.pool.PoolStatistics`
            has them, of all nodes together; times in seconds.
        """
        return flat(self.samples())

    def samples(self) -> tuple[Sample, ...]:
        """Return the numbers as samples of the metrics in `ws_core.metrics`, of all nodes together."""
        shared, pool = self.shared, {POOL_NAME: self.name}
        found = [
            *(entry for node in self.leased for entry in node.samples()),
            sample(
                f"{PREFIX}count",
                sum(connection.connected for connection in shared),
                attributes={**pool, STATE: "used"},
            ),
            sample(f"{PREFIX}max", len(shared), attributes=pool),
            sample(
                f"{PREFIX}pending_requests", sum(connection.queued for connection in shared), attributes=pool
            ),
            sample(f"{PREFIX}timeouts", sum(connection.timeouts for connection in shared), attributes=pool),
            *(time_sample(f"{PREFIX}create_time", connection.create_time, pool) for connection in shared),
            *(time_sample(f"{PREFIX}wait_time", connection.wait_time, pool) for connection in shared),
        ]
        return summed(found, self.name)

    def status(self) -> Mapping[str, object]:
        """Return plain numbers and strings, for logs, status pages and `pool_status`."""
        shared = self.shared
        return {
            "name": self.name,
            "endpoint": ", ".join(sorted({connection.endpoint for connection in shared})),
            "connected": sum(connection.connected for connection in shared),
            "shared": len(shared),
            **{key: sum(getattr(connection, key) for connection in shared) for key in _SHARED},
            "down": "; ".join(connection.down for connection in shared if connection.down),
            **{f"leased_{key}": sum(getattr(pool, key) for pool in self.leased) for key in _DEDICATED},
            **(
                {}
                if self.cache is None
                else {f"cache_{key}": value for key, value in asdict(self.cache).items()}
            ),
        }
