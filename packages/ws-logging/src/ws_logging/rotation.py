"""When a log file is full: by size, by time of day, or both. Pure decisions; no file is touched.

The time of day is local time, so that days with a change of the clock are 23 or 25 hours long.
"""

from __future__ import annotations

import os
import re
from datetime import datetime, timedelta, tzinfo
from typing import IO, Any, Self

from ws_logging.errors import LoggingConfigError

__all__ = ("LogFileRotator",)

_MIB = 1024 * 1024
_TIME = re.compile(r"(?P<hour>[01]?\d|2[0-3]):(?P<minute>[0-5]\d)(:(?P<second>[0-5]\d))?")


class LogFileRotator:
    """
    Rotate before a file would grow beyond a size, and at a time of every day.

    It can be handed to `QueuedFileSink` and, because it is callable, to loguru's own file sink.

    Args:
        size: The largest size of a file in bytes, or None for any size.
        at: The local time of day as ``"HH:MM"`` or ``"HH:MM:SS"``, or None for no daily rotation.
        tz: The time zone; by default that of the machine.

    Raises:
        LoggingConfigError: The size or the time makes no sense.

    Example:
        >>> from datetime import timezone
        >>> rotator = LogFileRotator(100, "00:00", tz=timezone.utc)
        >>> rotator.is_due(size=90, adding=20, since=1000.0, now=1001.0)
        True
        >>> rotator.is_due(size=1, adding=1, since=86399.0, now=86400.0)
        True
    """

    __slots__ = ("_at", "_size", "_tz")

    def __init__(self, size: int | None = None, at: str | None = None, *, tz: tzinfo | None = None) -> None:
        if size is not None and not is_number(size, int, 1):
            raise LoggingConfigError(f"rotation: a file size is at least 1 byte, not {size!r}")

        self._size = size
        self._at = None if at is None else _parse(at)
        self._tz = tz

    def __repr__(self) -> str:
        at = None if self._at is None else ":".join(f"{part:02}" for part in self._at)
        return f"LogFileRotator(size={self._size}, at={at!r})"

    @classmethod
    def make(cls, size_mb: float = 500, at: str | None = "00:00", *, tz: tzinfo | None = None) -> Self:
        """
        Make a rotator as the first version of the library did.

        Args:
            size_mb: The largest size of a file in MiB.
            at: The local time of day of the daily rotation, or None.
            tz: The time zone; by default that of the machine.

        Raises:
            LoggingConfigError: The size or the time makes no sense.
        """
        if not is_number(size_mb, int | float, 1 / _MIB):
            raise LoggingConfigError(f"rotation: a file size is a positive number of MiB, not {size_mb!r}")

        return cls(max(1, int(size_mb * _MIB)), at, tz=tz)

    def is_due(self, *, size: int, adding: int, since: float, now: float) -> bool:
        """
        Decide whether a new file must be begun before something is written.

        Args:
            size: Bytes in the file. An empty file is never rotated.
            adding: Bytes about to be written.
            since: Unix time when the file was begun.
            now: Unix time.
        """
        if size == 0:
            return False

        if self._size is not None and size + adding > self._size:
            return True

        return self._at is not None and since < self.last_boundary(now) <= now

    def room(self, size: int) -> int | None:
        """
        Return how many bytes a file may still grow, or None for any number.

        Args:
            size: Bytes in the file.
        """
        return None if self._size is None else self._size - size

    def last_boundary(self, now: float) -> float:
        """
        Return the Unix time of the latest daily rotation that is not in the future.

        Args:
            now: Unix time.

        Raises:
            LoggingConfigError: The rotator has no time of day.
        """
        if self._at is None:
            raise LoggingConfigError("rotation: this rotator has no time of day")

        today = datetime.fromtimestamp(now, self._tz)
        boundary = self._on(today)
        return boundary if boundary <= now else self._on(today - timedelta(days=1))

    def _on(self, day: datetime) -> float:
        """Return the boundary on a day; one that the clock skips is as long after midnight as it says."""
        assert self._at is not None
        hour, minute, second = self._at
        naive = datetime(day.year, day.month, day.day, hour, minute, second)  # noqa: DTZ001 - made aware below
        return (naive if self._tz is None else naive.replace(tzinfo=self._tz)).timestamp()

    def __call__(self, message: Any, file: IO[str]) -> bool:  # Any: loguru's message, a str with a record
        """Answer loguru's own file sink, for those who use it."""
        file.seek(0, 2)
        now = message.record["time"].timestamp()
        size = file.tell()
        return self.is_due(size=size, adding=len(message.encode()), since=_begun(file, now), now=now)


def _begun(file: IO[str], now: float) -> float:
    """Return when a file of loguru was begun: the last write is the best that the system knows."""
    try:
        return os.fstat(file.fileno()).st_mtime
    except OSError:
        return now


def is_number(
    value: Any, kind: Any, least: float
) -> bool:  # Any: what a user has given, types as of isinstance
    """Return whether a value is a sensible number."""
    return isinstance(value, kind) and not isinstance(value, bool) and least <= value < 2**50


def _parse(at: object) -> tuple[int, int, int]:
    match = _TIME.fullmatch(at) if isinstance(at, str) else None

    if match is None:
        raise LoggingConfigError(f'rotation: a time of day looks like "00:00" or "23:59:59", not {at!r}')

    return int(match["hour"]), int(match["minute"]), int(match["second"] or 0)
