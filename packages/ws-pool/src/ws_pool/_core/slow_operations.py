"""The slowest statements and commands of this process, while somebody watches it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from ws_core.inspection import publish

__all__ = ("SlowOperations",)

_SLOW: Final = 0.1  # seconds
_KEPT: Final = 50


class Operation(Protocol):
    """What `ws_pool._core.tracing` reports."""

    @property
    def name(self) -> str:
        """What is done."""
        ...

    @property
    def attributes(self) -> Mapping[str, str | int]:
        """More of it, in OpenTelemetry's words."""
        ...


class SlowOperations:
    """Keeps operations that took longer than a tenth of a second, without their values."""

    def __init__(self, *, limit: float = _SLOW) -> None:
        self._limit = limit
        self._kept: deque[Mapping[str, object]] = deque(maxlen=_KEPT)
        publish("slow statements", self)

    def begin(self, operation: Operation) -> _Timed:
        """Begin an operation."""
        return _Timed(self, operation)

    def end(self, operation: Operation, seconds: float, error: BaseException | None) -> None:
        """Keep an operation that was slow."""
        if seconds < self._limit:
            return

        attributes = operation.attributes
        self._kept.append(
            {
                "at": time.time() - seconds,
                "seconds": seconds,
                "system": attributes.get("db.system.name", "http"),
                "text": attributes.get("db.query.text", operation.name),
                "error": "" if error is None else type(error).__name__,
            }
        )

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
        self._owner.end(self._operation, time.perf_counter() - self._began, error)
