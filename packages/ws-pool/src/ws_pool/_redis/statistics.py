"""What a Redis pool tells about itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from ws_pool._core.statistics import Histogram, PoolStatistics

__all__ = ("CacheStatistics", "ConnectionStatistics", "RedisStatistics")

_LEASED: Final = ("size", "max_size", "idle", "leased", "waiting", "opened", "closed", "timeouts", "failures")


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """
    The state of one lane.

    Args:
        endpoint: Where it is connected to, or tries to.
        connected: Whether there is a link.
        in_line: Commands that wait for their turn on the link or for their reply.
        in_flight: Those of them that were sent.
        queued: Commands in front of a link that is full or absent.
        bytes_in_line: Bytes of the heavy commands in line and queue.
        commands: Replies received so far.
        dropped: Replies whose caller had gone (cancelled, timed out).
        connects: Connections opened so far.
        losses: Connections lost so far.
        down: Why there is no link; empty when there is.
        timeouts: Commands that found no room, or not in time.
        create_time: How long opening a connection took.
        wait_time: How long commands waited that were not sent at once.
    """

    endpoint: str
    connected: bool
    in_line: int
    in_flight: int
    queued: int
    bytes_in_line: int
    commands: int
    dropped: int
    connects: int
    losses: int
    down: str
    timeouts: int
    create_time: Histogram
    wait_time: Histogram


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """
    What became of reads that could be cached.

    Args:
        entries: Replies kept now.
        hits: Reads answered from here.
        misses: Reads that went to the server.
        invalidations: Keys that the server has told to have changed.
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
        leased: The connections that are lent, of each node.
        cache: The client-side cache, or None without one.
    """

    name: str
    shared: tuple[ConnectionStatistics, ...]
    leased: tuple[PoolStatistics, ...]
    cache: CacheStatistics | None = None

    def metrics(self) -> Mapping[str, float]:
        """
        Give the numbers under the names of OpenTelemetry's ``db.client.connection.*`` conventions.

        A shared connection counts as one that is used; who waits for room on it waits for a
        connection. Times of use are those of lent connections: a shared one is used all the time.

        Returns:
            Metric names, with their attribute in braces, to values, as `ws_pool.pool.PoolStatistics`
            gives them, of all nodes together; times in seconds.
        """
        shared = self.shared
        total: defaultdict[str, float] = defaultdict(int)

        for pool in self.leased:
            for name, value in pool.metrics().items():
                total[name] += value

        prefix = "db.client.connection."
        total[f'{prefix}count{{{prefix}state="used"}}'] += sum(lane.connected for lane in shared)
        total[f"{prefix}max"] += len(shared)
        total[f"{prefix}pending_requests"] += sum(lane.queued for lane in shared)
        total[f"{prefix}timeouts"] += sum(lane.timeouts for lane in shared)

        for lane in shared:
            for name, times in (("create_time", lane.create_time), ("wait_time", lane.wait_time)):
                total[f"{prefix}{name}.sum"] += times.total
                total[f"{prefix}{name}.count"] += times.count

        return dict(total)

    def status(self) -> Mapping[str, object]:
        """Give plain numbers and strings, for logs, status pages and `pool_status`."""
        shared = self.shared
        return {
            "name": self.name,
            "endpoint": ", ".join(sorted({lane.endpoint for lane in shared})),
            "connected": sum(lane.connected for lane in shared),
            "shared": len(shared),
            "in_line": sum(lane.in_line for lane in shared),
            "in_flight": sum(lane.in_flight for lane in shared),
            "queued": sum(lane.queued for lane in shared),
            "bytes_in_line": sum(lane.bytes_in_line for lane in shared),
            "commands": sum(lane.commands for lane in shared),
            "dropped": sum(lane.dropped for lane in shared),
            "connects": sum(lane.connects for lane in shared),
            "losses": sum(lane.losses for lane in shared),
            "timeouts": sum(lane.timeouts for lane in shared),
            "down": "; ".join(lane.down for lane in shared if lane.down),
            **{f"leased_{key}": sum(getattr(pool, key) for pool in self.leased) for key in _LEASED},
            **(
                {}
                if self.cache is None
                else {f"cache_{key}": value for key, value in asdict(self.cache).items()}
            ),
        }
