"""What a Redis pool tells about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from ws_pool._mux._cache import CacheStatistics
from ws_pool._mux._lane import LaneStatistics
from ws_pool._statistics import PoolStatistics

__all__ = ("RedisStatistics",)

_LEASED: Final = ("size", "max_size", "idle", "leased", "waiting", "opened", "closed", "timeouts", "failures")


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
    shared: tuple[LaneStatistics, ...]
    leased: tuple[PoolStatistics, ...]
    cache: CacheStatistics | None = None

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
            "down": "; ".join(lane.down for lane in shared if lane.down),
            **{f"leased_{key}": sum(getattr(pool, key) for pool in self.leased) for key in _LEASED},
            **(
                {}
                if self.cache is None
                else {f"cache_{key}": value for key, value in asdict(self.cache).items()}
            ),
        }
