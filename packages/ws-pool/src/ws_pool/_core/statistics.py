"""Statistics of pools: frozen snapshots, and the histograms behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Generic, TypeVar

from ws_core.errors import describe
from ws_core.metrics import METRICS, Sample, merge, sample
from ws_pool._core.pool_state import PoolState

T = TypeVar("T")

PREFIX: Final = "db.client.connection."
POOL_NAME: Final = f"{PREFIX}pool.name"
STATE: Final = f"{PREFIX}state"

BUCKETS = 64
"""Buckets of powers of two of a microsecond: bucket n holds times below 2**n µs, enough for all times."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """
    Times in buckets of powers of two of a microsecond.

    Args:
        counts: How many times fell into each bucket; bucket n holds those below 2**n µs.
        total: Sum of all times in seconds.

    Example:
        >>> Histogram(counts=(0, 3, 1), total=4e-06).quantile(0.5)
        2e-06
    """

    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """How many times were recorded."""
        return sum(self.counts)

    def quantile(self, fraction: float) -> float:
        """
        Estimate a quantile.

        Args:
            fraction: Between 0 and 1; 0.99 is the 99th percentile.

        Returns:
            The upper edge of the quantile's bucket in seconds; 0.0 when nothing was recorded.
        """
        left = fraction * self.count

        if left <= 0:
            return 0.0

        for exponent, count in enumerate(self.counts):
            left -= count

            if left <= 0:
                return float(1 << exponent) / 1e6

        return float(1 << len(self.counts)) / 1e6


class HistogramBuilder:
    """The growing side of `Histogram`; recording costs one list item."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts: list[int] = [0] * BUCKETS
        self.total: float = 0.0

    def record(self, seconds: float) -> None:
        """Count one time of a monotonic clock."""
        # The number of bits of the whole microseconds is the number of the bucket: one integer
        # operation, where a search among bucket edges would cost more than the pool's bookkeeping.
        self.counts[int(seconds * 1e6).bit_length()] += 1
        self.total += seconds

    def snapshot(self) -> Histogram:
        """Return the present state, frozen."""
        return Histogram(tuple(self.counts), self.total)


def time_sample(name: str, times: Histogram, attributes: Mapping[str, str]) -> Sample:
    """Return a histogram as a sample, whose edges are some of its powers of two: the buckets are exact."""
    buckets, start = [], 0

    for edge in METRICS[name].buckets:
        end = round(edge * 1e6).bit_length()
        buckets.append(sum(times.counts[start:end]))
        start = end

    buckets.append(sum(times.counts[start:]))
    return sample(name, times.total, count=times.count, attributes=attributes, buckets=tuple(buckets))


def summed(samples: Iterable[Sample], pool: str) -> tuple[Sample, ...]:
    """Return the sums of the samples of all parts of a pool, under its name."""
    return merge(
        replace(
            found,
            attributes=tuple((key, pool if key == POOL_NAME else value) for key, value in found.attributes),
        )
        for found in samples
    )


def flat(samples: Iterable[Sample]) -> Mapping[str, float]:
    """Return samples of one pool as numbers by name; the state is in braces, times have a sum and a count."""
    result: dict[str, float] = {}

    for found in samples:
        state = "".join(f'{{{key}="{value}"}}' for key, value in found.attributes if key != POOL_NAME)

        if found.metric.kind == "histogram":
            result[f"{found.metric.name}.sum"] = found.value
            result[f"{found.metric.name}.count"] = found.count
        else:
            result[f"{found.metric.name}{state}"] = found.value

    return result


def plain(snapshot: Any, **more: object) -> dict[str, object]:  # Any: the statistics of a pool
    """Return the fields of a snapshot apart from its histograms, and more values behind them."""
    values = {entry.name: getattr(snapshot, entry.name) for entry in fields(snapshot)}
    return {
        name: value for name, value in values.items() if name not in more and not isinstance(value, Histogram)
    } | more


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """
    The state of a pool at one moment.

    Args:
        name: The pool's name.
        min_size: Connections kept open.
        max_size: Most connections at once.
        size: Connections that exist or are being opened or closed: never above ``max_size``.
        idle: Connections ready to be taken.
        leased: Connections in use.
        connecting: Connections being opened.
        waiting: Tasks waiting for a connection.
        opened: Connections opened so far.
        closed: Connections closed so far.
        timeouts: Acquires that were not served in time.
        failures: Connection attempts that failed.
        wait_time: How long acquires waited.
        lease_time: How long connections were in use.
        down: Why the server cannot be reached at the moment; empty when it can.
        create_time: How long opening a connection took.
    """

    name: str
    min_size: int
    max_size: int
    size: int
    idle: int
    leased: int
    connecting: int
    waiting: int
    opened: int
    closed: int
    timeouts: int
    failures: int
    wait_time: Histogram
    lease_time: Histogram
    down: str = ""
    create_time: Histogram = Histogram((), 0.0)

    def samples(self) -> tuple[Sample, ...]:
        """Return the numbers as samples of the metrics in `ws_core.metrics`, with the pool's name."""
        pool = {POOL_NAME: self.name}
        return (
            sample(f"{PREFIX}count", self.idle, attributes={**pool, STATE: "idle"}),
            sample(f"{PREFIX}count", self.leased, attributes={**pool, STATE: "used"}),
            sample(f"{PREFIX}idle.max", self.max_size, attributes=pool),
            sample(f"{PREFIX}idle.min", self.min_size, attributes=pool),
            sample(f"{PREFIX}max", self.max_size, attributes=pool),
            sample(f"{PREFIX}pending_requests", self.waiting, attributes=pool),
            sample(f"{PREFIX}timeouts", self.timeouts, attributes=pool),
            time_sample(f"{PREFIX}create_time", self.create_time, pool),
            time_sample(f"{PREFIX}wait_time", self.wait_time, pool),
            time_sample(f"{PREFIX}use_time", self.lease_time, pool),
        )

    def metrics(self) -> Mapping[str, float]:
        """
        Return the numbers under the names of OpenTelemetry's ``db.client.connection.*`` conventions.

        Returns:
            Metric names, with their attribute in braces, to values; times in seconds. With ``_``
            for ``.`` they are as Prometheus writes them.
        """
        return flat(self.samples())

    def status(self) -> Mapping[str, object]:
        """Return plain numbers and strings, for logs, status pages and `pool_status`."""
        wait_p99, lease_p99 = self.wait_time.quantile(0.99), self.lease_time.quantile(0.99)
        return plain(self, wait_p99=wait_p99, lease_p99=lease_p99, down=self.down)


class PoolMetrics(Generic[T]):
    """The histograms of one pool, and its snapshots."""

    def __init__(self, name: str, state: PoolState[T]) -> None:
        self.waits: HistogramBuilder = HistogramBuilder()  # only of acquires that had to wait
        self.leases: HistogramBuilder = HistogramBuilder()
        self.creates: HistogramBuilder = HistogramBuilder()
        self._name = name
        self._state = state

    def snapshot(self, failure: BaseException | None) -> PoolStatistics:
        """Return the present state, frozen; ``failure`` is why the server cannot be reached."""
        state, totals = self._state, self._state.totals
        leases = self.leases.snapshot()
        waits = list(self.waits.counts)

        # The fast path of acquire records no wait. Every acquire is a lease, over or not, so those
        # that are missing waited 0 µs.
        waits[0] += leases.count + len(state.leased) - sum(waits)
        return PoolStatistics(
            name=self._name,
            min_size=state.min_size,
            max_size=state.max_size,
            size=state.size,
            idle=len(state.idle),
            leased=len(state.leased),
            connecting=state.connecting,
            waiting=len(state.waiters),
            opened=totals.opened,
            closed=totals.closed,
            timeouts=totals.timeouts,
            failures=totals.failures,
            wait_time=Histogram(tuple(waits), self.waits.total),
            lease_time=leases,
            down="" if failure is None else describe(failure),
            create_time=self.creates.snapshot(),
        )
