"""Turn a record of loguru into one line: text for people, or JSON for machines.

Text: whatever could begin a new line or hide a part of one is made visible, and the lines of a
traceback are indented. JSON: the fields of the OpenTelemetry log data model.

Every record becomes a line. What cannot be rendered as it is, is rendered as well as can be, and says
so; a line that is too long is cut, and says so as well.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

from ws_core.errors import describe
from ws_logging._escaping import escape, escape_json, has_surrogates, safe_repr, safe_str
from ws_logging._json import JsonEncoder, quote, repaired
from ws_logging.context import current_fields
from ws_logging.errors import LoggingConfigError
from ws_logging.redact import Redactor

__all__ = ("LEAST_LINE", "MAX_LINE", "JsonFormatter", "Renderer", "TextFormatter", "check_template")

# Any below: loguru's record is a dictionary of many types.

Renderer = Callable[[Mapping[str, Any], str], str]
"""Takes a record and its traceback or ""; returns the line with its end. Never raises."""

MAX_LINE: Final = 256 * 1024
LEAST_LINE: Final = 1024
_WORD: Final = 4096  # characters before a cut in which its place may move to the end of a word
_PLACES: Final = 4096  # places in the code whose texts are kept
_SEVERITY: Final = ((50, 21), (40, 17), (30, 13), (25, 10), (20, 9), (10, 5), (0, 1))
_COLORS: Final = ((40, "31"), (30, "33"), (25, "32"), (20, "1"), (0, "2"))


class _Formatter:
    """What both formats share: fields, redaction, and the last resort."""

    def __init__(self, redactor: Redactor | None, max_line: int) -> None:
        self._redactor = redactor
        self._mask: Callable[[str], str] = redactor.text if redactor is not None else str
        self._max_line = max_line
        self._places: dict[tuple[Any, ...], Any] = {}
        self._second: tuple[tuple[Any, ...], str] = ((), "")
        self.repaired = 0

    def __call__(self, record: Mapping[str, Any], trace: str) -> str:
        """Return the line of a record."""
        try:
            return self._render(record, trace)
        except Exception as error:  # noqa: BLE001 - the message must not be lost, whatever is wrong with it
            self.repaired += 1

            try:
                return self._repaired(record, trace, error)
            except Exception:  # noqa: BLE001 - not even that
                return self._last_resort(record, error)

    def _render(self, record: Mapping[str, Any], trace: str) -> str:
        raise NotImplementedError

    def _repaired(self, record: Mapping[str, Any], trace: str, error: Exception) -> str:
        raise NotImplementedError

    def _last_resort(self, record: Mapping[str, Any], error: Exception) -> str:
        """Return a line of the message and the reason alone."""
        line = {
            "Body": repaired(safe_str(record["message"])[:1024]),
            "log.repaired": repaired(_reason(error)),
        }
        return escape_json(json.dumps(line, ensure_ascii=False)) + "\n"

    def _message(self, record: Mapping[str, Any]) -> str:
        """Return the message, cut before it is masked: the cost of masking is bounded, too."""
        message: str = record["message"]
        return self._mask(cut(message, self._max_line) if len(message) > self._max_line else message)

    def _fields(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a record: provided ones, context and its own, the latter winning."""
        provided = current_fields()
        extra: dict[str, Any] = record["extra"]
        fields = {**provided, **extra} if provided else extra

        if not fields:
            return fields

        for value in fields.values():
            if type(value) is str and len(value) > self._max_line:
                fields = {
                    key: cut(item, self._max_line) if type(item) is str else item
                    for key, item in fields.items()
                }
                break

        return fields if self._redactor is None else self._redactor.fields(fields)

    def _trace(self, trace: str) -> str:
        return self._mask(cut(trace, self._max_line)) if trace else trace

    def _of_second(self, time: datetime, make: Callable[[datetime], str]) -> str:
        """Return a text about the second of a time; most messages are of the same one as the one before."""
        key = (time.second, time.minute, time.hour, time.day, time.month, time.year, time.tzinfo)
        known = self._second  # looked at once: another thread may replace it meanwhile

        if key != known[0]:
            known = self._second = (key, make(time))

        return known[1]

    def _place(self, key: tuple[Any, ...], make: Callable[[tuple[Any, ...]], Any]) -> Any:
        """Return texts about a place in the code; there are few places, and many messages of each."""
        place = self._places.get(key)

        if place is None:
            if len(self._places) >= _PLACES:
                self._places.clear()

            place = self._places[key] = make(key)

        return place


class TextFormatter(_Formatter):
    """Render lines for people; `max_line` bounds the characters of a line, and of the traceback below it."""

    def __init__(
        self,
        redactor: Redactor | None,
        *,
        color: bool = False,
        template: str | None = None,
        max_line: int = MAX_LINE,
    ) -> None:
        super().__init__(redactor, max_line)
        self._color = color
        self._template = template

    def _render(self, record: Mapping[str, Any], trace: str) -> str:
        fields = self._fields(record)
        shown = (
            " ".join(f"{_key(name)}={self._show(value)}" for name, value in fields.items()) if fields else ""
        )

        if self._template is None:
            line = self._head(record) + escape(self._message(record))
            line = f"{line} | {shown}" if shown else line
        else:
            line = self._template.format_map(_parts(record, escape(self._message(record)), shown))

        if len(line) > self._max_line:
            line = cut(line, self._max_line)

        return f"{line}\n{self._indented(trace)}" if trace else f"{line}\n"

    def _head(self, record: Mapping[str, Any]) -> str:
        level = record["level"]
        time = record["time"]
        stamp = f"{self._of_second(time, _local)}.{time.microsecond // 1000:03}"
        key = (level.name, level.no, record["name"], record["function"], record["line"])
        return f"{stamp} | {self._place(key, self._where)} - "

    def _where(self, place: tuple[Any, ...]) -> str:
        level, number, name, function, line = place
        shown = f"{escape(level): <8}"

        if self._color:
            shown = f"\x1b[{_pick(_COLORS, number)}m{shown}\x1b[0m"

        return f"{shown} | {escape(str(name))}:{escape(str(function))}:{line}"

    def _show(self, value: Any) -> str:
        """Return a value: bare when it is one word, else quoted."""
        text = value if isinstance(value, str) else self._mask(safe_repr(value))

        if not text or " " in text or '"' in text:
            text = json.dumps(text, ensure_ascii=False)

        return escape(text)

    def _indented(self, trace: str) -> str:
        return "".join(f"    {escape(line)}\n" for line in self._trace(trace).rstrip("\n").split("\n"))

    def _repaired(self, record: Mapping[str, Any], trace: str, error: Exception) -> str:
        message, fields = escape(self._mask(safe_str(record["message"]))), record["extra"]
        line = f"{self._head(record)}{message} | log.repaired={quote(escape(_reason(error)))}"

        for name, value in fields.items() if isinstance(fields, dict) else ():
            shown = repr(repaired(self._redactor.value(value, str(name)) if self._redactor else value))
            line += f" {_key(safe_str(name))}={quote(escape(shown))}"

        return f"{cut(line, self._max_line)}\n{self._indented(trace) if trace else ''}"


def _parts(record: Mapping[str, Any], message: str, fields: str) -> dict[str, Any]:
    """Return what a template may name."""
    return {
        "time": record["time"],
        "level": escape(record["level"].name),
        "name": escape(str(record["name"])),
        "function": escape(str(record["function"])),
        "line": record["line"],
        "message": message,
        "fields": fields,
        "process": record["process"].id,
        "thread": escape(str(record["thread"].name)),
    }


def check_template(template: Any, where: str) -> None:
    """Refuse a format that cannot be filled in, or that would not make one line."""
    sample: Any = SimpleNamespace(id=1, name="x", no=20)
    record = {"time": datetime.now().astimezone(), "level": sample, "name": "x", "function": "x", "line": 1}
    parts = _parts({**record, "process": sample, "thread": sample}, "x", "")

    if not isinstance(template, str) or not template.isprintable() or not template:
        raise LoggingConfigError(f"{where}: one line of text is expected, not {template!r}")

    try:
        template.format_map(parts)
    except Exception as error:  # noqa: BLE001 - format() raises many kinds
        known = ", ".join(f"{{{name}}}" for name in parts)
        reason = describe(error, with_type=True)
        raise LoggingConfigError(
            f"{where}: {template!r} cannot be filled in ({reason}); there are {known}"
        ) from None


class _Note(NamedTuple):
    """What a line says about itself: an attribute, and how long its parts may be."""

    text: str
    share: int


class JsonFormatter(_Formatter):
    """Render JSON lines after the OpenTelemetry log data model; `max_line` bounds the bytes of a line."""

    def __init__(
        self,
        redactor: Redactor | None,
        *,
        resource: Mapping[str, object] | None = None,
        max_line: int = MAX_LINE,
    ) -> None:
        super().__init__(redactor, max_line)
        self._encode = JsonEncoder(self._mask).encode
        whole = json.dumps(repaired(dict(resource or {})), ensure_ascii=False, separators=(",", ":"))
        self._end = f',"Resource":{whole}}}\n' if resource else "}\n"

    def _render(self, record: Mapping[str, Any], trace: str) -> str:
        line = self._compose(record, self._message(record), self._fields(record), self._trace(trace))
        return line if self._fits(line) else self._shortened(record, trace)

    def _compose(
        self,
        record: Mapping[str, Any],
        message: str,
        fields: Mapping[str, Any],
        trace: str,
        note: _Note | None = None,
    ) -> str:
        # Written by hand rather than by json.dumps of one dictionary: three times as fast, since most
        # of a line is the same for each message of a place.
        level, process, thread, time = record["level"], record["process"], record["thread"], record["time"]
        encode = self._encode
        ids, attributes = "", ""

        for name, value in fields.items():
            if name in _IDS:
                ids += f',"{_IDS[name]}":{encode(value)}'
            elif name not in _OWN:
                attributes += f"{quote(name)}:{encode(value)},"

        key = (record["name"], record["function"], record["line"], record["file"].path, level.name, level.no)
        head, scope = self._place(key, _fixed)
        line = (
            f'{{"Timestamp":"{self._of_second(time, _epoch)}{time.microsecond:06}000",{head},'
            f'"Body":{quote(message)},'
            f'"Attributes":{{{attributes}{note.text if note else ""}{scope}'
            f'"process.pid":{process.id},"thread.id":{thread.id},"thread.name":{quote(str(thread.name))}'
            f"{self._exception(record, trace, note.share if note else self._max_line)}}},"
            f'"InstrumentationScope":{{"Name":{quote(str(record["name"]))}}}{ids}{self._end}'
        )

        if not note and has_surrogates(line):
            raise UnicodeError("half of a surrogate pair")  # to be written in the repaired form

        return escape_json(line)

    def _exception(self, record: Mapping[str, Any], trace: str, share: int) -> str:
        error = record["exception"]

        if error is None or error.type is None:
            return f',"code.stacktrace":{quote(trace)}' if trace else ""

        kind = getattr(error.type, "__qualname__", str(error.type))
        text = self._mask(cut(safe_str(error.value), share))
        return (
            f',"exception.type":{quote(kind)},"exception.message":{quote(text)}'
            f',"exception.stacktrace":{quote(trace)}'
        )

    def _fits(self, line: str) -> bool:
        return len(line) * 4 <= self._max_line or len(line.encode()) <= self._max_line

    def _shortened(self, record: Mapping[str, Any], trace: str) -> str:
        """Return a line whose parts are cut until it fits."""
        message, fields, trace = self._message(record), self._fields(record), self._trace(trace)
        share = self._max_line // 2

        while share > _SHORTEST:
            kept, left_out = self._small(fields, share)
            what = f"{left_out} fields are left out" if left_out else "a part is cut off"
            note = _Note(f'"log.cut":{quote(what)},', share)
            line = self._compose(record, cut(message, share), kept, cut(trace, share), note)

            if self._fits(line):
                return line

            share //= 2

        note = _Note('"log.cut":"all but the message is left out",', _SHORTEST)
        return self._compose({**record, "exception": None}, cut(message, _SHORTEST), {}, "", note)

    def _small(self, fields: Mapping[str, Any], share: int) -> tuple[dict[str, Any], int]:
        """Return the fields that fit into a share of the line, and how many do not."""
        kept: dict[str, Any] = {}

        for name, value in fields.items():
            share -= len(name) + len(self._encode(value))

            if share > 0:
                kept[name] = value

        return kept, len(fields) - len(kept)

    def _repaired(self, record: Mapping[str, Any], trace: str, error: Exception) -> str:
        """Return a line of repaired parts; the redactor has had its turn, or has it once more."""
        fields = repaired(record["extra"])
        fields = fields if isinstance(fields, dict) else {"extra": fields}

        if self._redactor is not None:
            fields = self._redactor.fields(fields)

        share = self._max_line // 4
        message = repaired(cut(self._mask(safe_str(record["message"])), share))
        trace = repaired(self._mask(cut(trace, share)))
        safe = {**record, "name": repaired(str(record["name"])), "exception": _plain(record["exception"])}
        kept, _ = self._small(fields, share)
        note = _Note(f'"log.repaired":{quote(repaired(_reason(error)))},', share)
        return self._compose(safe, message, kept, trace, note)


_IDS: Final = {"trace_id": "TraceId", "span_id": "SpanId"}
_OWN: Final = frozenset(
    {
        "code.function.name", "code.file.path", "code.line.number", "process.pid", "thread.id", "thread.name",
        "exception.type", "exception.message", "exception.stacktrace", "log.repaired", "log.cut",
    }
)  # fmt: skip
"""Attributes that are the record's own; a field cannot pretend to be one."""
_SHORTEST: Final = 128


class _PlainException:
    """The type and text of an exception that could not be rendered."""

    def __init__(self, error: Any) -> None:
        self.type = type("_", (), {"__qualname__": repaired(str(getattr(error.type, "__qualname__", "")))})
        self.value = repaired(safe_str(error.value))


def _plain(error: Any) -> Any:
    return None if error is None or error.type is None else _PlainException(error)


def _fixed(place: tuple[Any, ...]) -> tuple[str, str]:
    """Return the two parts of a JSON line that are the same for each message of a place."""
    _, function, line, path, level, number = place
    head = f'"SeverityText":{quote(level)},"SeverityNumber":{_pick(_SEVERITY, number)}'
    scope = (
        f'"code.function.name":{quote(str(function))},"code.file.path":{quote(str(path))},'
        f'"code.line.number":{line},'
    )
    return head, scope


def cut(text: str, limit: int) -> str:
    """
    Return a text of about ``limit`` characters at most, which says how much of it is missing.

    It is cut at a space if there is one nearby: what is behind half a URL is not seen to be a secret.
    """
    if len(text) <= limit:
        return text

    limit = max(0, limit - 64)
    word = max(0, limit - _WORD)
    end = max(text.rfind(" ", word, limit), text.rfind("\n", word, limit))
    end = end if end > 0 else limit
    return f"{text[:end]} [cut: {len(text) - end} more characters]"


def _key(name: str) -> str:
    """Return the name of a field for the text format."""
    return escape(name if " " not in name and "=" not in name else json.dumps(name, ensure_ascii=False))


def _reason(error: Exception) -> str:
    return f"not rendered as it is: {describe(error, with_type=True)[:200]}"


def _local(time: datetime) -> str:
    return time.isoformat(" ", "seconds")[:19]  # without the offset: local time is meant


def _epoch(time: datetime) -> str:
    return str(math.floor(time.timestamp()))


def _pick(table: tuple[tuple[int, Any], ...], number: int) -> Any:
    return next(value for limit, value in table if number >= limit)
