"""Check the arguments of `register_logger` before anything is done. Nothing here has side effects."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

from loguru import logger

from ws_core.errors import ConfigError
from ws_logging._formatters import LEAST_LINE, MAX_LINE
from ws_logging._sink_options import check as check_sink
from ws_logging.errors import LoggingConfigError
from ws_logging.redact import Redactor

__all__ = ("check", "level_name", "level_number", "resource_of")

# Any below: what is checked may be of any type.


def check(**arguments: Any) -> None:
    """Check arguments of `register_logger` without doing anything; missing ones are fine."""
    level_number(arguments.get("level", "info"))

    for name, level in (arguments.get("levels") or {}).items():
        level_number(level, f"levels[{name!r}]")

    for name, share in (arguments.get("sample") or {}).items():
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            raise LoggingConfigError(f"sample[{name!r}]: a share between 0 and 1 is expected, not {share!r}")

    _check_number("ring", arguments.get("ring", 1000), 0, 1_000_000)
    _check_number("max_line", arguments.get("max_line", MAX_LINE), LEAST_LINE, 2**30)
    resource_of(arguments.get("service"))

    try:
        Redactor(arguments.get("redact") or ())
    except ConfigError as error:
        raise LoggingConfigError(str(error)) from None

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
        total_size=arguments.get("file_total_size"),
        compression=arguments.get("compression"),
        overflow=arguments.get("overflow", "block"),
    )


def _check_number(what: str, value: Any, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise LoggingConfigError(f"{what}: a number from {least:,} to {most:,} is expected, not {value!r}")


def resource_of(service: Any) -> dict[str, object]:
    """Return the attributes that describe the service."""
    if service is None:
        return {}

    if isinstance(service, str) and service:
        return {"service.name": service}

    if isinstance(service, Mapping) and all(isinstance(name, str) for name in service):
        return dict(service)

    message = f'service: a name or a mapping like {{"service.name": "shop"}} is expected, not {service!r}'
    raise LoggingConfigError(message)


def _check_directory(directory: Path) -> None:
    """Refuse a directory that cannot be written to or made."""
    place = directory.absolute()

    while not place.exists():
        place = place.parent

    if not place.is_dir():
        raise LoggingConfigError(f"file_path: {place} is not a directory", path=str(directory))

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


def level_name(number: int) -> str:
    """Return the name of a level, or its number when it has none."""
    names = {5: "TRACE", 10: "DEBUG", 20: "INFO", 25: "SUCCESS", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}
    return names.get(number, str(number))


def _is_output(handler: object) -> bool:
    return callable(handler) or hasattr(handler, "write") or isinstance(handler, logging.Handler)
