"""Records as JSON: lines after the OpenTelemetry log data model, and lines of OTLP, the protocol itself.

Documents are put together by hand rather than by one `json.dumps`: most of a line is the same for each
message of a place, a thread or a field, and is kept as text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from ws_logging._escaping import escape_json, has_surrogates, safe_str
from ws_logging._formatters import MAX_LINE, Formatter, cut, pick, reason_of
from ws_logging._json import JsonEncoder, OtlpEncoder, quote, repaired
from ws_logging.redact import Redactor

# Any below: loguru's record is a dictionary of many types.

# The SeverityNumber of OpenTelemetry, from a level's number on.
_SEVERITY: Final = ((50, 21), (40, 17), (30, 13), (25, 10), (20, 9), (10, 5), (0, 1))
_SHORTEST: Final = (
    128  # characters of a part; what does not fit with such parts has no other than the message
)
_MOST_NAMES: Final = 4096  # names of fields, and threads, whose texts are kept
_IDS: Final = {
    "trace_id": re.compile("(?!0{32})[0-9a-f]{32}", re.ASCII),
    "span_id": re.compile("(?!0{16})[0-9a-f]{16}", re.ASCII),
}
_NO_IDS: Final[dict[str, str]] = {}
_OWN: Final = frozenset(
    {
        "code.function.name", "code.file.path", "code.line.number", "code.stacktrace", "process.pid",
        "thread.id", "thread.name", "exception.type", "exception.message", "exception.stacktrace",
        "log.repaired", "log.cut",
    }
)  # fmt: skip
"""Attributes that are the record's own; a field cannot pretend to be one."""


class _Field(NamedTuple):
    """What is known of the name of a field."""

    key: str  # how it begins
    text_key: str  # the same before a text
    is_secret: bool
    is_own: bool
    id_pattern: re.Pattern[str] | None


class _Place(NamedTuple):
    """Texts that are the same for each message of a place in the code."""

    severity: str
    code: str
    scope: str


class DocumentFormatter(Formatter):
    """Render records as JSON; `max_line` bounds the bytes of a line."""

    # How an attribute is written: its parts are joined by name, value and end.
    _KEY: str
    _TEXT_KEY: str
    _END: str
    _TEXT_END: str
    _NUMBER: str  # the name of the severity as a number
    _ENCODER: type[JsonEncoder | OtlpEncoder]

    def __init__(
        self,
        redactor: Redactor | None,
        *,
        resource: Mapping[str, object] | None = None,
        max_line: int = MAX_LINE,
    ) -> None:
        super().__init__(redactor, max_line)
        self._encode = self._ENCODER(self._mask).encode
        self._names: dict[str, _Field] = {}
        self._threads: dict[tuple[int, int, str], str] = {}
        self._describe(repaired(dict(resource or {})))

    def _describe(self, resource: dict[str, Any]) -> None:
        """Write what is the same in each line: the resource."""
        raise NotImplementedError

    def _document(
        self, record: Mapping[str, Any], place: _Place, body: str, attributes: str, ids: Mapping[str, str]
    ) -> str:
        """Put a line together; the attributes begin with a comma, but for the first one."""
        raise NotImplementedError

    def _render(self, record: Mapping[str, Any], trace: str) -> str:
        message: str = record["message"]

        if len(message) > self._max_line:  # cut before it is masked: the cost of masking is bounded, too
            message = cut(message, self._max_line)

        attributes, ids, _ = self._attributes(self._fields(record))
        trace = self._trace(trace) if trace else ""
        line = self._compose(record, self._mask(message), attributes, ids, trace, self._max_line)

        # A character has four bytes at most.
        if len(line) * 4 > self._max_line and len(line.encode("utf-8", "replace")) > self._max_line:
            return self._shortened(record, trace)

        if line.isascii() and "\x7f" not in line:
            return line

        if has_surrogates(line):
            raise UnicodeError("half of a surrogate pair")  # to be written in the repaired form

        return escape_json(line)

    def _attributes(
        self, fields: Mapping[Any, Any], room: float = math.inf
    ) -> tuple[str, dict[str, str], int]:
        """Mask and write fields; return them, the ids among them, and how many there was no room for."""
        text, ids, left_out = "", _NO_IDS, 0

        for name, value in fields.items():
            field = self._names.get(name) if type(name) is str else None
            field = self._field(name) if field is None else field

            if field.is_own:
                continue

            if type(value) is str and not field.is_secret:
                if field.id_pattern is not None and field.id_pattern.fullmatch(value):
                    ids = {**ids, name: value}
                    continue

                short = value if len(value) <= self._max_line else cut(value, self._max_line)
                one = f"{field.text_key}{quote(self._mask(short))}{self._TEXT_END}"
            elif type(value) is int and not field.is_secret:
                one = f"{field.key}{self._encode(value)}{self._END}"
            else:
                masked = value if self._redactor is None else self._redactor.value(value, safe_str(name))
                one = f"{field.key}{self._encode(masked)}{self._END}"

            room -= len(one)

            if room > 0:
                text += one
            else:
                left_out += 1

        return text, ids, left_out

    def _field(self, name: Any) -> _Field:
        """Return what is known of a name; there are few, and each is on many messages."""
        text = name if isinstance(name, str) else safe_str(name)
        secret = self._redactor is not None and self._redactor.is_secret_name(text)
        key = quote(text)
        field = _Field(self._KEY % key, self._TEXT_KEY % key, secret, text in _OWN, _IDS.get(text))

        if type(name) is str:
            if len(self._names) >= _MOST_NAMES:
                self._names.clear()

            self._names[name] = field

        return field

    def _pair(self, name: str, text: str) -> str:
        """Write an attribute that is a text."""
        return f"{self._TEXT_KEY % quote(name)}{quote(text)}{self._TEXT_END}"

    def _number(self, name: str, number: int) -> str:
        return f"{self._KEY % quote(name)}{self._encode(number)}{self._END}"

    def _compose(
        self,
        record: Mapping[str, Any],
        message: str,
        attributes: str,
        ids: Mapping[str, str],
        trace: str,
        share: int,
    ) -> str:
        level, process, thread = record["level"], record["process"], record["thread"]
        key = (record["name"], record["function"], record["line"], record["file"].path, level.name, level.no)
        place = self._places.get(key) or self._place(key, self._place_of)
        who = self._threads.get((process.id, thread.id, thread.name)) or self._thread(process, thread)
        error = "" if not trace and record["exception"] is None else self._exception(record, trace, share)
        return self._document(record, place, quote(message), f"{attributes}{place.code}{error}{who}", ids)

    def _place_of(self, place: tuple[Any, ...]) -> _Place:
        name, function, line, path, level, number = place
        severity = f'{quote(level)},"{self._NUMBER}":{pick(_SEVERITY, number)}'
        code = (
            self._pair("code.function.name", str(function))
            + self._pair("code.file.path", str(path))
            + self._number("code.line.number", line)
        )
        return _Place(severity, code, quote(str(name)))

    def _thread(self, process: Any, thread: Any) -> str:
        """Write who has logged; without the end, since these attributes are the last."""
        if len(self._threads) >= _MOST_NAMES:
            self._threads.clear()

        text = (
            self._number("process.pid", process.id)
            + self._number("thread.id", thread.id)
            + self._pair("thread.name", str(thread.name))
        ).removesuffix(",")
        self._threads[process.id, thread.id, thread.name] = text
        return text

    def _exception(self, record: Mapping[str, Any], trace: str, share: int) -> str:
        error = record["exception"]

        if getattr(error, "type", None) is None:  # an application may have put anything there
            return self._pair("code.stacktrace", trace) if trace else ""

        kind = getattr(error.type, "__qualname__", str(error.type))
        return (
            self._pair("exception.type", kind)
            + self._pair("exception.message", self._mask(cut(safe_str(error.value), share)))
            + self._pair("exception.stacktrace", trace)
        )

    def _shortened(self, record: Mapping[str, Any], trace: str) -> str:
        """Return a line whose parts are cut until it fits."""
        message, fields = self._message(record), self._fields(record)
        share = self._max_line // 2

        while share > _SHORTEST:
            text, ids, left_out = self._attributes(fields, share)
            what = f"{left_out} fields are left out" if left_out else "a part is cut off"
            text += self._pair("log.cut", what)
            line = self._compose(record, cut(message, share), text, ids, cut(trace, share), share)
            line = escape_json(line)

            if len(line.encode()) <= self._max_line:
                return line

            share //= 2

        text = self._pair("log.cut", "all but the message is left out")
        bare = {**record, "exception": None}
        return escape_json(self._compose(bare, cut(message, _SHORTEST), text, {}, "", _SHORTEST))

    def _repaired(self, record: Mapping[str, Any], trace: str, error: Exception) -> str:
        """Return a line of repaired parts; the redactor has had its turn, or has it once more."""
        fields = repaired({**self._safe_provided(), **_mapping(record["extra"])})
        share = self._max_line // 4  # message, fields, traceback, and the text of the exception
        safe = {**record, "exception": _plain(record["exception"])}
        safe |= {name: repaired(safe_str(record[name])) for name in ("name", "function")}
        message = self._mask(cut(repaired(safe_str(record["message"])), share))
        trace = cut(self._mask(repaired(trace)), share) if trace else ""
        text, ids, _ = self._attributes(fields, share)
        text += self._pair("log.repaired", repaired(reason_of(error)))
        return escape_json(self._compose(safe, message, text, ids, trace, share))


class JsonFormatter(DocumentFormatter):
    """Render JSON lines after the OpenTelemetry log data model."""

    _KEY, _TEXT_KEY, _END, _TEXT_END, _NUMBER = "%s:", "%s:", ",", ",", "SeverityNumber"
    _ENCODER = JsonEncoder

    def _describe(self, resource: dict[str, Any]) -> None:
        whole = json.dumps(resource, ensure_ascii=False, separators=(",", ":"))
        self._end = f',"Resource":{whole}}}\n' if resource else "}\n"

    def _document(
        self, record: Mapping[str, Any], place: _Place, body: str, attributes: str, ids: Mapping[str, str]
    ) -> str:
        time = record["time"]
        known = f',"TraceId":"{ids["trace_id"]}"' if "trace_id" in ids else ""
        known = f'{known},"SpanId":"{ids["span_id"]}"' if "span_id" in ids else known
        return (
            f'{{"Timestamp":"{self._of_second(time, _epoch)}{time.microsecond:06}000",'
            f'"SeverityText":{place.severity},"Body":{body},"Attributes":{{{attributes}}},'
            f'"InstrumentationScope":{{"Name":{place.scope}}}{known}{self._end}'
        )


class OtlpFormatter(DocumentFormatter):
    """
    Render each record as a whole request of OTLP, as collectors read them from files.

    What is between `head` and `tail` may be joined with others of the same formatter, by commas.
    """

    _KEY, _TEXT_KEY = '{"key":%s,"value":', '{"key":%s,"value":{"stringValue":'
    _END, _TEXT_END, _NUMBER = "},", "}},", "severityNumber"
    _ENCODER = OtlpEncoder
    tail: Final = b"]}]}\n"

    def _describe(self, resource: dict[str, Any]) -> None:
        about = ",".join(
            f'{{"key":{quote(str(name))},"value":{self._encode(value)}}}' for name, value in resource.items()
        )
        self._head = f'{{"resourceLogs":[{{"resource":{{"attributes":[{about}]}},"scopeLogs":['
        self.head: bytes = escape_json(self._head).encode()

    def _document(
        self, record: Mapping[str, Any], place: _Place, body: str, attributes: str, ids: Mapping[str, str]
    ) -> str:
        time = record["time"]
        stamp = f'"{self._of_second(time, _epoch)}{time.microsecond:06}000"'
        known = f',"traceId":"{ids["trace_id"]}"' if "trace_id" in ids else ""
        known = f'{known},"spanId":"{ids["span_id"]}"' if "span_id" in ids else known
        return (
            f'{self._head}{{"scope":{{"name":{place.scope}}},"logRecords":[{{'
            f'"timeUnixNano":{stamp},"observedTimeUnixNano":{stamp},"severityText":{place.severity},'
            f'"body":{{"stringValue":{body}}},"attributes":[{attributes}]{known}}}]}}]}}]}}\n'
        )

    def _last_resort(self, record: Mapping[str, Any], error: Exception) -> str:
        body = quote(repaired(safe_str(record["message"])[:1024]))
        why = self._pair("log.repaired", repaired(reason_of(error))).removesuffix(",")
        line = f'{{"logRecords":[{{"body":{{"stringValue":{body}}},"attributes":[{why}]}}]}}'
        return escape_json(f"{self._head}{line}{self.tail.decode()}")


class _PlainException:
    """The type and text of an exception that could not be rendered."""

    def __init__(self, error: Any) -> None:
        self.type = type("_", (), {"__qualname__": repaired(str(getattr(error.type, "__qualname__", "")))})
        self.value = repaired(safe_str(error.value))


def _plain(error: Any) -> Any:
    return None if getattr(error, "type", None) is None else _PlainException(error)


def _mapping(extra: Any) -> Mapping[Any, Any]:
    return extra if isinstance(extra, dict) else {"extra": extra}


def _epoch(time: datetime) -> str:
    return str(math.floor(time.timestamp()))
