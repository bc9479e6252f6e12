"""The times of statements, commands and requests, and the slowest of them, while somebody watches."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from ws_core.inspection import publish
from ws_core.metrics import METRICS, Sample, TimeRecorder, register
from ws_pool._core.operation import Operation, failure

_SLOW: Final = 0.1  # seconds
_KEPT: Final = 50
_DURATIONS: Final = ("db.client.operation.duration", "http.client.request.duration")


class SlowOperations:
    """
    Counts the times of all operations, and keeps those that took longer than a tenth of a second.

    It keeps no values of statements, and is its own snapshot.
    """

    def __init__(self, *, limit: float = _SLOW) -> None:
        self._limit = limit
        self._kept: deque[Mapping[str, object]] = deque(maxlen=_KEPT)
        self._times = {name: TimeRecorder(name) for name in _DURATIONS}
        publish("slow statements", self)
        register(self)

    def begin(self, operation: Operation) -> _Timed:
        """Begin an operation."""
        return _Timed(self, operation)

    def end(
        self,
        operation: Operation,
        seconds: float,
        error: BaseException | None,
        learned: Mapping[str, str | int] = MappingProxyType({}),
    ) -> None:
        """Count an operation, and keep it if it was slow."""
        attributes = operation.attributes

        if (times := self._times.get(operation.duration)) is not None:
            found = {**attributes, **learned, "error.type": failure(error, learned)}
            times.record(
                seconds, *(str(found.get(name, "")) for name in METRICS[operation.duration].attributes)
            )

        if seconds < self._limit or operation.waits:
            return

        self._kept.append(
            {
                "at": time.time() - seconds,
                "seconds": seconds,
                "system": attributes.get("db.system.name", "http"),
                "text": attributes.get("db.query.text", operation.name),
                "error": "" if error is None else type(error).__name__,
            }
        )

    def statistics(self) -> SlowOperations:
        """Return the times up to now."""
        return self

    def samples(self) -> Iterable[Sample]:
        """Return them as samples."""
        return [found for times in self._times.values() for found in times.samples()]

    def inspect(self) -> Sequence[Mapping[str, object]]:
        """Return them, newest first."""
        return list(reversed(self._kept))


class _Timed:
    """An operation under way."""

    __slots__ = ("_began", "_operation", "_owner")

    def __init__(self, owner: SlowOperations, operation: Operation) -> None:
        self._owner = owner
        self._operation = operation
        self._began = time.perf_counter()

    def headers(self) -> Mapping[str, str]:
        """Return no headers: nothing is traced here."""
        return {}

    def end(self, error: BaseException | None, attributes: Mapping[str, str | int]) -> None:
        """End the operation."""
        self._owner.end(self._operation, time.perf_counter() - self._began, error, attributes)
