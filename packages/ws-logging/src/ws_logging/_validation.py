"""Check the arguments of `register_logger` before anything is done. Nothing here has side effects."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

from ws_core.errors import ConfigError
from ws_logging._formatters import LEAST_LINE, MAX_LINE
from ws_logging._levels import level_number
from ws_logging._output_options import check_format, parse_outputs
from ws_logging._sink_options import check as check_sink
from ws_logging.errors import LoggingConfigError
from ws_logging.redact import Redactor

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

    _check_handler(arguments.get("handler"), "handler")

    check_format(arguments.get("format"), json=arguments.get("json", False))

    _check_outputs(arguments.get("outputs"), file_path)
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


def _check_outputs(outputs: Any, file_path: Any) -> None:
    for one in parse_outputs(outputs, file_path):
        level_number(one.level, f"{one.where}.level")

        if one.path is not None:
            _check_directory(one.path.parent, f"{one.where}.to")
        elif not isinstance(one.to, str):
            _check_handler(one.to, f"{one.where}.to")


def _check_handler(handler: Any, what: str) -> None:
    if handler is not None and (iscoroutinefunction(handler) or not _is_output(handler)):
        message = f"{what}: a function or an object with write is expected, not {type(handler).__name__}"
        raise LoggingConfigError(message)


def _check_directory(directory: Path, what: str = "file_path") -> None:
    """Refuse a directory that cannot be written to or made."""
    place = directory.absolute()

    while not place.exists():
        place = place.parent

    if not place.is_dir():
        raise LoggingConfigError(f"{what}: {place} is not a directory", path=str(directory))

    if not os.access(place, os.W_OK | os.X_OK):
        message = f"{what}: no permission to write to {place}; choose another directory"
        raise LoggingConfigError(message, path=str(directory))


def _is_output(handler: object) -> bool:
    return callable(handler) or hasattr(handler, "write") or isinstance(handler, logging.Handler)
