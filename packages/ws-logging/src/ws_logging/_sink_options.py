"""The options of `QueuedFileSink`: what they may be, and the file that a path names."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

from ws_logging._compression import check_compression
from ws_logging.errors import LoggingConfigError
from ws_logging.rotation import LogFileRotator, is_number

# Any below: what is checked may be of any type.

Overflow = Literal["block", "drop_newest", "drop_oldest"]


def check(**options: Any) -> None:
    """Refuse options of `QueuedFileSink` that make no sense; missing ones are fine. Opens nothing."""
    rotation, retention = options.get("rotation"), options.get("retention")

    if rotation is not None and not isinstance(rotation, LogFileRotator):
        message = f"rotation: LogFileRotator.make(500, '00:00') or None is expected, not {rotation!r}"
        raise LoggingConfigError(message)

    if not (retention is None or isinstance(retention, timedelta) or is_number(retention, int, 0)):
        message = f"retention: a number of files, a timedelta or None is expected, not {retention!r}"
        raise LoggingConfigError(message)

    check_compression(options.get("compression"))

    if (overflow := options.get("overflow", "block")) not in ("block", "drop_newest", "drop_oldest"):
        message = f"overflow: 'block', 'drop_newest' or 'drop_oldest' is expected, not {overflow!r}"
        raise LoggingConfigError(message)

    for name, kind, least, what in _LIMITS:
        value = options.get(name)

        if name in options and value is not None and not is_number(value, kind, least):
            raise LoggingConfigError(f"{name}: {what} of at least {least} is expected, not {value!r}")


_LIMITS: Final = (
    ("total_size", int, 1, "a number of bytes"),
    ("max_bytes", int, 1, "a number of bytes"),
    ("max_records", int, 1, "a number of messages"),
    ("block_timeout", int | float, 0, "a number of seconds"),
    ("stop_timeout", int | float, 0, "a number of seconds"),
)


def live_path(path: str | os.PathLike[str]) -> Path:
    """Return the name of the live file: ``app.{time}.log`` is ``app.log`` as long as it is written."""
    text = os.fspath(path)

    for marker in (".{time}", "_{time}", "-{time}", "{time}"):
        text = text.replace(marker, "")

    return Path(text).absolute()
