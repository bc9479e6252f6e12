"""The counters of an HTTP pool, and the snapshot that users get of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from ws_core.metrics import Sample, sample
from ws_pool._core.statistics import Histogram, HistogramBuilder, plain, time_sample


@dataclass(frozen=True, slots=True)
class HttpStatistics:
    """
    The state of an HTTP pool at one moment.

    Args:
        name: The pool's name.
        limit: Most connections at once; 0 for any number.
        connections: Connections in use.
        idle: Connections kept for the next request.
        active: Requests in flight.
        requests: Requests made so far, each with all its attempts as one.
        retries: Attempts after the first.
        failures: Requests that got no complete answer.
        time: How long requests took.
    """

    name: str
    limit: int
    connections: int
    idle: int
    active: int
    requests: int
    retries: int
    failures: int
    time: Histogram

    def samples(self) -> tuple[Sample, ...]:
        """Return the numbers as samples of the metrics in `ws_core.metrics`, with the pool's name."""
        pool = {"wintersweet.http.client.name": self.name}
        state = "http.connection.state"
        return (
            sample("http.client.open_connections", self.connections, attributes={**pool, state: "active"}),
            sample("http.client.open_connections", self.idle, attributes={**pool, state: "idle"}),
            sample("http.client.active_requests", self.active, attributes=pool),
            time_sample("wintersweet.http.client.time", self.time, pool),
            sample("wintersweet.http.client.retries", self.retries, attributes=pool),
            sample("wintersweet.http.client.failures", self.failures, attributes=pool),
        )

    def status(self) -> Mapping[str, object]:
        """Return plain numbers and strings, for logs, status pages and `pool_status`."""
        return plain(self, time_p50=self.time.quantile(0.5), time_p99=self.time.quantile(0.99))


class RequestCounters:
    """Counts of a pool's requests; all its sessions share them."""

    def __init__(self) -> None:
        self.active: int = 0
        self.requests: int = 0
        self.retries: int = 0
        self.failures: int = 0
        self.times: HistogramBuilder = HistogramBuilder()

    def begin(self) -> float:
        """Count a request that begins, and return the time."""
        self.active += 1
        self.requests += 1
        return time.perf_counter()

    def end(self, began: float, *, failed: bool = False) -> float:
        """Count a request that has ended, and return the seconds that it took."""
        elapsed = time.perf_counter() - began
        self.active -= 1
        self.failures += failed
        self.times.record(elapsed)
        return elapsed
