"""Turn a record of loguru into one line: what all formats share, and text for people.

Text: whatever could begin a new line or hide a part of one is made visible, and the lines of a
traceback are indented. `ws_logging._documents` has the formats for machines.

Every record becomes a line. What cannot be rendered as it is, is rendered as well as can be, and says
so; a line that is too long is cut, and says so as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from types import SimpleNamespace
from typing import Any, Final

from ws_core.errors import describe
from ws_logging._escaping import escape, escape_json, safe_repr, safe_str
from ws_logging._json import quote, repaired
from ws_logging.context import current_fields
from ws_logging.errors import LoggingConfigError
from ws_logging.redact import Redactor

# Any below: loguru's record is a dictionary of many types.

Renderer = Callable[[Mapping[str, Any], str], str]
"""Takes a record and its traceback or ""; returns the line with its end. Never raises."""

MAX_LINE: Final = 256 * 1024
LEAST_LINE: Final = 1024
_WORD: Final = 4096  # characters before a cut in which its place may move to the end of a word
_PLACES: Final = 4096  # places in the code whose texts are kept
# Of the terminal, from a level's number on: red, yellow, green, bold, faint.
_COLORS: Final = ((40, "31"), (30, "33"), (25, "32"), (20, "1"), (0, "2"))


class Formatter:
    """What all formats share: fields, redaction, and the last resort."""

    def __init__(self, redactor: Redactor | None, max_line: int) -> None:
        self._redactor = redactor
        self._mask: Callable[[str], str] = redactor.text if redactor is not None else str
        self._max_line = max_line
        self._places: dict[tuple[Any, ...], Any] = {}
        self._second: tuple[tuple[Any, ...], str] = ((), "")
        self.repaired: int = 0

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
            "log.repaired": repaired(reason_of(error)),
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
        return {**provided, **extra} if provided else extra

    def _safe_provided(self) -> dict[str, Any]:
        """Return the provided fields, if nothing is wrong with them."""
        try:
            return current_fields()
        except Exception:  # noqa: BLE001 - it may be what the line is repaired for
            return {}

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


class TextFormatter(Formatter):
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
        # Most messages have no fields and fit: what is for others costs them a look, not a call.
        fields = self._masked(record)
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

    def _masked(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the fields of a record, cut and masked."""
        fields = self._fields(record)

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
            shown = f"\x1b[{pick(_COLORS, number)}m{shown}\x1b[0m"

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
        line = f"{self._head(record)}{message} | log.repaired={quote(escape(reason_of(error)))}"

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


def cut(text: str, limit: int) -> str:
    """
    Return a text of about ``limit`` characters at most, which says how much of it is missing.

    It is cut at a space if there is one nearby: what is behind half a URL is not seen to be a secret.
    """
    if len(text) <= limit:
        return text

    limit = max(0, limit - 64)  # room for the note below
    word = max(0, limit - _WORD)
    end = max(text.rfind(" ", word, limit), text.rfind("\n", word, limit))
    end = end if end > 0 else limit
    return f"{text[:end]} [cut: {len(text) - end} more characters]"


def _key(name: str) -> str:
    """Return the name of a field for the text format."""
    return escape(name if " " not in name and "=" not in name else json.dumps(name, ensure_ascii=False))


def reason_of(error: Exception) -> str:
    """Return why a line is not as it should be."""
    return f"not rendered as it is: {describe(error, with_type=True)[:200]}"


def _local(time: datetime) -> str:
    return time.isoformat(" ", "seconds")[:19]  # without the offset: local time is meant


def pick(table: tuple[tuple[int, Any], ...], number: int) -> Any:
    """Return the value of the highest level that is not above a number."""
    return next(value for limit, value in table if number >= limit)
