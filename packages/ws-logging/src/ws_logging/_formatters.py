"""Turn a record of loguru into one line: text for people, or JSON for machines.

Text: control characters of a message are escaped and the lines of a traceback indented, so that
nobody can forge a line by what he makes the program log. JSON: the fields of the OpenTelemetry
log data model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from ws_logging.context import current_fields
from ws_logging.redact import Redactor

__all__ = ("Renderer", "json_line", "text_line")

# Any below: loguru's record is a dictionary of many types.

Renderer = Callable[[Mapping[str, Any], str], str]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SEVERITY: Final = ((50, 21), (40, 17), (30, 13), (25, 10), (20, 9), (10, 5), (0, 1))
_COLORS: Final = ((40, "31"), (30, "33"), (25, "32"), (20, "1"), (0, "2"))


def escape(text: str) -> str:
    r"""
    Make control characters visible.

    Example:
        >>> escape("one\ntwo\x1b[31m")
        'one\\ntwo\\x1b[31m'
    """
    return _CONTROL.sub(_visible, text) if _CONTROL.search(text) else text


def _visible(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def text_line(redactor: Redactor | None, *, color: bool = False) -> Renderer:
    """
    Return a renderer of lines for people.

    Args:
        redactor: Masks secrets; None masks nothing.
        color: Whether to color the level, for a terminal.
    """

    def render(record: Mapping[str, Any], exception: str) -> str:
        time = record["time"]
        level = f"{record['level'].name: <8}"

        if color:
            level = f"\x1b[{_pick(_COLORS, record['level'].no)}m{level}\x1b[0m"

        message = record["message"]
        fields = _fields(record)

        if redactor is not None:
            message = redactor.text(message)
            fields = redactor.fields(fields) if fields else fields

        stamp = time.isoformat(" ", "milliseconds")[:23]  # without the offset: local time is meant
        place = f"{record['name']}:{record['function']}:{record['line']}"
        line = f"{stamp} | {level} | {place} - {escape(message)}"

        if fields:
            line += " | " + " ".join(f"{name}={_show(value)}" for name, value in fields.items())

        return f"{line}\n{_indented(exception, redactor)}" if exception else f"{line}\n"

    return render


def json_line(redactor: Redactor | None, *, resource: Mapping[str, object] | None = None) -> Renderer:
    """
    Return a renderer of JSON lines.

    Args:
        redactor: Masks secrets; None masks nothing.
        resource: What the process is, such as ``{"service.name": "shop"}``.
    """
    whole = dict(resource or {})

    def render(record: Mapping[str, Any], exception: str) -> str:
        fields = _fields(record)
        message = record["message"]

        if redactor is not None:
            message = redactor.text(message)
            fields = redactor.fields(fields) if fields else fields
            exception = redactor.text(exception) if exception else exception

        level = record["level"]
        error = record["exception"]
        attributes: dict[str, object] = {
            **fields,
            "code.function.name": record["function"],
            "code.file.path": record["file"].path,
            "code.line.number": record["line"],
            "process.pid": record["process"].id,
            "thread.id": record["thread"].id,
            "thread.name": record["thread"].name,
        }

        if error is not None and error.type is not None:
            text = str(error.value)
            attributes["exception.type"] = error.type.__qualname__
            attributes["exception.message"] = redactor.text(text) if redactor is not None else text
            attributes["exception.stacktrace"] = exception

        line: dict[str, object] = {
            "Timestamp": _nanoseconds(record["time"]),
            "SeverityText": level.name,
            "SeverityNumber": _pick(_SEVERITY, level.no),
            "Body": message,
            "Attributes": attributes,
            "InstrumentationScope": {"Name": record["name"]},
        }

        for name, key in (("trace_id", "TraceId"), ("span_id", "SpanId")):
            if name in attributes:
                line[key] = attributes.pop(name)

        if whole:
            line["Resource"] = whole

        return json.dumps(line, ensure_ascii=False, default=_plain, separators=(",", ":")) + "\n"

    return render


def _fields(record: Mapping[str, Any]) -> dict[str, object]:
    """Return the fields of a record: provided ones, context and its own, the latter winning."""
    provided = current_fields()
    extra: dict[str, object] = record["extra"]
    return {**provided, **extra} if provided else extra


def _show(value: object) -> str:
    """Return a value for the text format: bare when it is one word, else quoted."""
    text = value if isinstance(value, str) else _safe(value)
    return (
        escape(text) if text and " " not in text and '"' not in text else json.dumps(text, ensure_ascii=False)
    )


def _safe(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - a broken repr of the application must not cost the message
        return f"<{type(value).__name__}: repr failed with {type(error).__name__}>"


def _plain(value: object) -> object:
    """Return what JSON can hold of a value that it does not know."""
    if isinstance(value, set | frozenset):
        return [_safe(item) if not isinstance(item, str | int | float) else item for item in value]

    try:
        return str(value)
    except Exception:  # noqa: BLE001 - as in _safe
        return _safe(value)


def _indented(exception: str, redactor: Redactor | None) -> str:
    text = redactor.text(exception) if redactor is not None else exception
    return "".join(f"    {escape(line)}\n" for line in text.rstrip("\n").split("\n"))


def _nanoseconds(time: datetime) -> int:
    return int(time.timestamp()) * 1_000_000_000 + time.microsecond * 1000


def _pick(table: tuple[tuple[int, Any], ...], number: int) -> Any:
    return next(value for limit, value in table if number >= limit)
