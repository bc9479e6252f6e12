"""The entries of ``outputs=``: what they may be. Nothing here has side effects."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from ws_logging._formatters import check_template
from ws_logging._sink_options import Overflow
from ws_logging._sink_options import check as check_sink
from ws_logging.errors import LoggingConfigError
from ws_logging.rotation import LogFileRotator

__all__ = ("OutputOptions", "check_format", "parse_outputs")

# Any below: what is checked may be of any type.

_STREAMS: Final = ("stderr", "stdout")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """One entry of ``outputs=``."""

    to: Any
    level: Any = 0
    json: bool = False
    format: str | None = None
    rotation: LogFileRotator | None = None
    retention: int | timedelta | None = None
    total_size: int | None = 2 * 1024**3
    compression: str | None = None
    overflow: Overflow = "block"
    where: str = field(default="", compare=False)

    @property
    def path(self) -> Path | None:
        """The file, if it is one."""
        return Path(self.to) if isinstance(self.to, str | os.PathLike) and self.to not in _STREAMS else None


_FILE_ONLY: Final = ("rotation", "retention", "total_size", "compression", "overflow")
_KEYS: Final = tuple(one.name for one in fields(OutputOptions) if one.name != "where")


def check_format(template: Any, *, json: Any, where: str = "") -> None:
    """Refuse a format of lines that cannot be filled in, or stands beside JSON."""
    if not isinstance(json, bool):
        raise LoggingConfigError(f"{where}json: True or False is expected, not {json!r}")

    if template is not None:
        if json:
            raise LoggingConfigError(f"{where}format: JSON has no other format; leave one of them out")

        check_template(template, f"{where}format")


def parse_outputs(outputs: Any, file_path: Any) -> list[OutputOptions]:
    """Check the entries of ``outputs=`` and return them; relative files are below the log's directory."""
    if outputs is None:
        return []

    if isinstance(outputs, str | Mapping) or not hasattr(outputs, "__iter__"):
        raise LoggingConfigError(f"outputs: a list of mappings is expected, not {outputs!r}")

    return [_parse(entry, f"outputs[{number}]", file_path) for number, entry in enumerate(outputs)]


def _parse(entry: Any, where: str, file_path: Any) -> OutputOptions:
    if not isinstance(entry, Mapping):
        raise LoggingConfigError(f'{where}: a mapping like {{"to": "stderr"}} is expected, not {entry!r}')

    if unknown := sorted(set(map(str, entry)) - set(_KEYS)):
        raise LoggingConfigError(f"{where}: there is no {', '.join(unknown)}; there are {', '.join(_KEYS)}")

    if not entry.get("to"):
        message = f'{where}.to: "stderr", "stdout", a file, a function or an object with write is expected'
        raise LoggingConfigError(message)

    values = dict(entry)

    if isinstance(values.get("rotation"), Mapping):  # as in settings that have no Python objects
        values["rotation"] = LogFileRotator.make(**values["rotation"])

    options = OutputOptions(**values, where=where)

    check_format(options.format, json=options.json, where=f"{where}.")
    path = options.path

    if path is None:
        if given := [name for name in _FILE_ONLY if name in values]:
            raise LoggingConfigError(f"{where}: {', '.join(given)} is for files only")

        return options

    try:
        check_sink(**{name: getattr(options, name) for name in _FILE_ONLY})
    except LoggingConfigError as error:
        raise LoggingConfigError(f"{where}.{error}") from None

    values["to"] = Path(file_path) / path if file_path else path
    return OutputOptions(**values, where=where)
