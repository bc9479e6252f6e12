"""Check the arguments of `register_logger` before anything is done. Nothing here has side effects."""

from __future__ import annotations

import logging
import os
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

from loguru import logger

from ws_logging.errors import LoggingConfigError
from ws_logging.sink import check as check_sink

__all__ = ("check", "level_number")

# Any below: what is checked may be of any type.


def check(**arguments: Any) -> None:
    """
    Check the arguments of `register_logger` without doing anything.

    Args:
        **arguments: As for `register_logger`; missing ones are fine.

    Raises:
        LoggingConfigError: One of them is wrong; the message names it.
    """
    level_number(arguments.get("level", "info"))

    for name, level in (arguments.get("levels") or {}).items():
        level_number(level, f"levels[{name!r}]")

    for name, share in (arguments.get("sample") or {}).items():
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            raise LoggingConfigError(f"sample[{name!r}]: a share between 0 and 1 is expected, not {share!r}")

    ring = arguments.get("ring", 1000)

    if not isinstance(ring, int) or ring < 0:
        raise LoggingConfigError(f"ring: a number of lines is expected, not {ring!r}")

    file_path = arguments.get("file_path")

    if file_path:
        _check_directory(Path(file_path))
        name = arguments.get("file_name", "app.log")

        if not isinstance(name, str) or not name or os.sep in name:
            raise LoggingConfigError(f"file_name: the name of a file is expected, not {name!r}")

    handler = arguments.get("handler")

    if handler is not None and (iscoroutinefunction(handler) or not _is_output(handler)):
        message = f"handler: a function or an object with write is expected, not {type(handler).__name__}"
        raise LoggingConfigError(message)

    check_sink(
        rotation=arguments.get("file_rotation"),
        retention=arguments.get("file_retention"),
        compression=arguments.get("compression"),
    )


def _check_directory(directory: Path) -> None:
    """Refuse a directory that cannot be written to or made."""
    place = directory.absolute()

    while not place.exists():
        place = place.parent

    if not place.is_dir():
        raise LoggingConfigError(f"file_path: {place} is no directory", path=str(directory))

    if not os.access(place, os.W_OK | os.X_OK):
        message = f"file_path: no permission to write to {place}; choose another directory"
        raise LoggingConfigError(message, path=str(directory))


def level_number(level: str | int, what: str = "level") -> int:
    """Return the number of a level."""
    if isinstance(level, int) and not isinstance(level, bool) and level >= 0:
        return level

    if isinstance(level, str):
        try:
            return logger.level(level.upper()).no
        except ValueError:
            pass

    names = "trace, debug, info, success, warning, error, critical"
    raise LoggingConfigError(f"{what}: there is no log level {level!r}; there are {names}")


def _is_output(handler: object) -> bool:
    return callable(handler) or hasattr(handler, "write") or isinstance(handler, logging.Handler)
