"""The names of all metrics, once: what the libraries count is the same on every page that shows it.

Names, units, buckets and attributes are OpenTelemetry's where its semantic conventions have them, and
begin with ``wintersweet.`` elsewhere. Nothing is exported here: a library registers objects whose
``statistics()`` have ``samples()``, and an exporter collects them.

Attributes are bounded: names of pools and tasks, templates of routes, never a path, a key or a
value. Times are in seconds, sizes in bytes.
"""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from ws_core._metric_table import METRICS, Metric
from ws_core.errors import WsError

__all__ = (
    "METRICS",
    "Metric",
    "Sample",
    "Source",
    "TimeRecorder",
    "collect",
    "merge",
    "register",
    "registered",
    "sample",
    "unregister",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """
    A value of a metric.

    Args:
        metric: What it is a value of.
        value: The number; of a histogram the sum of all times.
        count: How many times a histogram has.
        attributes: Values by attribute.
        buckets: How many times are in each bucket of the metric, and beyond the last; empty if not known.
    """

    metric: Metric
    value: float
    count: int = 0
    attributes: tuple[tuple[str, str], ...] = ()
    buckets: tuple[int, ...] = ()


def sample(
    name: str,
    value: float,
    *,
    count: int = 0,
    attributes: Mapping[str, str] | None = None,
    buckets: tuple[int, ...] = (),
) -> Sample:
    """
    Return a value of a metric that `METRICS` knows.

    Args:
        name: The metric's name.
        value: The number; of a histogram the sum of all times.
        count: How many times a histogram has.
        attributes: Values of the metric's attributes.
        buckets: How many times are in each bucket of the metric, and beyond the last.

    Raises:
        KeyError: The metric is not in the table.
        ValueError: It does not have such an attribute, or another number of buckets.

    Example:
        >>> sample("db.client.connection.max", 10).metric.unit
        '{connection}'
    """
    metric = METRICS[name]
    given = attributes or {}

    if unknown := given.keys() - set(metric.attributes):
        raise ValueError(f"{name} has no attribute {', '.join(sorted(unknown))}")

    if buckets and len(buckets) != len(metric.buckets) + 1:
        raise ValueError(f"{name} has {len(metric.buckets)} buckets and one beyond, not {len(buckets)}")

    return Sample(metric, value, count, tuple(sorted(given.items())), buckets)


class Snapshot(Protocol):
    """A frozen account of an object."""

    def samples(self) -> Iterable[Sample]:
        """Return its numbers."""
        ...


class Source(Protocol):
    """An object whose numbers are exported, such as a pool."""

    def statistics(self) -> Snapshot:
        """Return a snapshot, without I/O."""
        ...


_sources: weakref.WeakKeyDictionary[Source, dict[str, str]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def register(source: Source, **attributes: str) -> None:
    """
    Have an object's numbers exported for as long as it lives.

    Args:
        source: The object; it is not kept alive.
        **attributes: Attributes for those of its metrics that have them, with ``_`` for ``.``, such as
            ``db_system_name="mysql"``.

    Example:
        >>> class Door:
        ...     def statistics(self):
        ...         return self
        ...
        ...     def samples(self):
        ...         return [sample("wintersweet.websocket.connections", 3)]
        >>> door = Door()
        >>> register(door)
        >>> [found.value for found in collect() if found.metric.name == "wintersweet.websocket.connections"]
        [3]
    """
    with _lock:
        _sources[source] = {name.replace("_", "."): value for name, value in attributes.items()}


def unregister(source: Source) -> None:
    """
    Have an object's numbers exported no longer.

    Args:
        source: The object; nothing happens when it is not registered.
    """
    with _lock:
        _sources.pop(source, None)


def registered() -> tuple[Source, ...]:
    """Return the objects whose numbers are exported."""
    with _lock:
        return tuple(_sources)


def collect(*sources: Source) -> tuple[Sample, ...]:
    """
    Return the numbers of this process, those of the same metric and attributes as one.

    Args:
        *sources: Which objects to read; by default all that are registered.
    """
    with _lock:
        known = dict(_sources)

    found: list[Sample] = []

    for source in sources or known:
        try:
            samples = source.statistics().samples()
        except WsError:  # a pool that is not started, or closed, has no numbers
            continue

        found += [_with(sample, known.get(source, {})) for sample in samples]

    return merge(found)


def _with(found: Sample, attributes: Mapping[str, str]) -> Sample:
    """Add attributes that the metric has."""
    added = {name: value for name, value in attributes.items() if name in found.metric.attributes}
    return (
        replace(found, attributes=tuple(sorted({**added, **dict(found.attributes)}.items())))
        if added
        else found
    )


def merge(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """
    Sum samples of the same metric and attributes, of several objects or processes.

    Example:
        >>> [found.value for found in merge([sample("wintersweet.log.pending", n) for n in (1, 2)])]
        [3]
    """
    sums: dict[tuple[str, tuple[tuple[str, str], ...]], Sample] = {}

    for found in samples:
        key = (found.metric.name, found.attributes)
        known = sums.get(key)
        sums[key] = found if known is None else _sum(known, found)

    return tuple(sums.values())


def _sum(one: Sample, other: Sample) -> Sample:
    buckets = one.buckets or other.buckets

    if one.buckets and other.buckets:
        buckets = tuple(a + b for a, b in zip(one.buckets, other.buckets, strict=True))

    return Sample(one.metric, one.value + other.value, one.count + other.count, one.attributes, buckets)


class TimeRecorder:
    """
    Times of one metric by attributes, in its buckets.

    Args:
        name: The metric, a histogram.

    Example:
        >>> times = TimeRecorder("wintersweet.lock.wait")
        >>> times.record(0.25)
        >>> times.record(0.75)
        >>> [(found.value, found.count) for found in times.samples()]
        [(1.0, 2)]
    """

    __slots__ = ("_edges", "_metric", "_times")

    def __init__(self, name: str) -> None:
        self._metric = METRICS[name]
        self._edges = self._metric.buckets
        self._times: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}

    def record(self, seconds: float, *values: str) -> None:
        """
        Count a time.

        Args:
            seconds: The time.
            *values: The values of the metric's attributes, in their order; "" leaves one out.
        """
        found = self._times.get(values)

        if found is None:
            found = self._times[values] = ([0] * (len(self._edges) + 1), [0.0])

        counts, total = found
        counts[bisect_left(self._edges, seconds)] += 1
        total[0] += seconds

    def samples(self) -> tuple[Sample, ...]:
        """Return the times as samples."""
        names = self._metric.attributes
        return tuple(
            Sample(
                self._metric,
                total[0],
                sum(counts),
                tuple(sorted((name, value) for name, value in zip(names, values, strict=False) if value)),
                tuple(counts),
            )
            for values, (counts, total) in list(self._times.items())
        )
