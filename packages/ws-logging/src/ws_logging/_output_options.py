"""The entries of ``outputs=``: what they may be. Nothing here has side effects."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

from ws_logging._formatters import check_template
from ws_logging._sink_options import Overflow
from ws_logging._sink_options import check as check_sink
from ws_logging.errors import LoggingConfigError
from ws_logging.otel import check_url
from ws_logging.rotation import LogFileRotator

# Any below: what is checked may be of any type.

Json = bool | Literal["otlp"]
DEFAULT_ROTATION: Final = LogFileRotator(500 * 1024 * 1024, "00:00")
DEFAULT_RETENTION: Final = 255
DEFAULT_TOTAL_SIZE: Final = 2 * 1024**3
_STREAMS: Final = ("stderr", "stdout")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """One entry of ``outputs=``."""

    to: Any
    level: Any = 0
    json: Json = False
    format: str | None = None
    rotation: LogFileRotator | None = DEFAULT_ROTATION
    retention: int | timedelta | None = DEFAULT_RETENTION
    total_size: int | None = DEFAULT_TOTAL_SIZE
    compression: str | None = None
    overflow: Overflow = "block"
    headers: Mapping[str, str] | None = None
    timeout: float = 5.0
    where: str = field(default="", compare=False)

    @property
    def path(self) -> Path | None:
        """The file, if it is one."""
        is_file = isinstance(self.to, str | os.PathLike) and self.to not in _STREAMS and self.url is None
        return Path(self.to) if is_file else None

    @property
    def url(self) -> str | None:
        """The URL of a collector, if it is one."""
        return self.to if isinstance(self.to, str) and "://" in self.to else None


_ONLY: Final = {
    "files": ("rotation", "retention", "total_size", "compression"),
    "URLs": ("headers", "timeout"),
    "files and URLs": ("overflow",),
}
_KEYS: Final = tuple(one.name for one in fields(OutputOptions) if one.name != "where")


def check_format(template: Any, *, json: Any, where: str = "") -> None:
    """Refuse a format of lines that cannot be filled in, or stands beside JSON."""
    if not isinstance(json, bool) and json != "otlp":
        raise LoggingConfigError(f'{where}json: True, False or "otlp" is expected, not {json!r}')

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
        message = (
            f'{where}.to: "stderr", "stdout", a file, a URL, a function or an object with write is expected'
        )
        raise LoggingConfigError(message)

    values = dict(entry)

    if isinstance(values.get("rotation"), Mapping):  # as in settings that have no Python objects
        values["rotation"] = LogFileRotator.make(**values["rotation"])

    options = OutputOptions(**values, where=where)

    check_format(options.format, json=options.json, where=f"{where}.")
    _check_kind(options, values)

    if options.url is not None:
        if "json" in values or options.format is not None:
            raise LoggingConfigError(
                f"{where}: json and format are not for URLs; what is sent is always OTLP"
            )

        values["json"] = "otlp"
    elif options.path is not None:
        values["to"] = Path(file_path) / options.path if file_path else options.path

    return OutputOptions(**values, where=where)


def _check_kind(options: OutputOptions, given: Mapping[str, Any]) -> None:
    """Check the options that only outputs of some kind have."""
    where = options.where
    allowed = {"files": options.path is not None, "URLs": options.url is not None}
    allowed["files and URLs"] = any(allowed.values())

    for kind, names in _ONLY.items():
        if not allowed[kind] and (wrong := [name for name in names if name in given]):
            raise LoggingConfigError(f"{where}: {', '.join(wrong)} is for {kind} only")

    try:
        check_sink(**{name: getattr(options, name) for name in (*_ONLY["files"], *_ONLY["files and URLs"])})

        if options.url is not None:
            check_url(options.url, options.headers, options.timeout)
    except LoggingConfigError as error:
        raise LoggingConfigError(f"{where}.{error}") from None
