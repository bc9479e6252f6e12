"""Any value as JSON, plain or of OTLP: what cannot be written becomes a text that says what it was."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from ws_logging._escaping import safe_repr, safe_str

# Any below: values of the application, of any type.

_DEEPEST: Final = 20
_MOST_ITEMS: Final = 10_000
_LARGEST_DECIMAL: Final = 2**13_000  # Python refuses to write longer numbers in decimal

quote: Callable[[str], str] = json.encoder.encode_basestring  # the one of C, which leaves Unicode as it is


class JsonEncoder:
    """Encode values that a log record may hold; the text of objects that JSON does not know is masked."""

    def __init__(self, mask: Callable[[str], str]) -> None:
        self._mask = mask
        self._encode = json.JSONEncoder(
            ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=self._default
        ).encode

    def encode(self, value: Any) -> str:
        """Return a value as JSON; raises whatever `json` raises of values that it cannot write."""
        if type(value) is str:
            return quote(value)

        return str(value) if type(value) is int and -(2**63) <= value < 2**64 else self._encode(value)

    def _default(self, value: Any) -> Any:
        if isinstance(value, set | frozenset):
            return sorted(value, key=safe_str)

        if isinstance(value, bytes | bytearray | memoryview):
            return self._mask(bytes(value).decode("utf-8", "backslashreplace"))

        return self._mask(safe_str(value))


class OtlpEncoder:
    """Encode values as AnyValue of OTLP: each says which type it is of."""

    def __init__(self, mask: Callable[[str], str]) -> None:
        self._plain = JsonEncoder(mask).encode

    def encode(self, value: Any) -> str:
        """Return a value as JSON; raises whatever `json` raises of values that it cannot write."""
        if type(value) is int and -(2**63) <= value < 2**63:
            return f'{{"intValue":"{value}"}}'

        if type(value) is str:
            return f'{{"stringValue":{quote(value)}}}'

        return json.dumps(
            _any_value(json.loads(self._plain(value))), ensure_ascii=False, separators=(",", ":")
        )


def _any_value(value: Any) -> dict[str, Any]:
    """Return what JSON can hold as an AnyValue; null is one without a type."""
    typed: dict[str, Any] = {}

    match value:
        case None:
            pass
        case bool():
            typed["boolValue"] = value
        case int() if -(2**63) <= value < 2**63:
            typed["intValue"] = str(value)
        case float():
            typed["doubleValue"] = value
        case list():
            typed["arrayValue"] = {"values": [_any_value(item) for item in value]}
        case dict():
            pairs = [{"key": key, "value": _any_value(item)} for key, item in value.items()]
            typed["kvlistValue"] = {"values": pairs}
        case _:
            typed["stringValue"] = str(value)

    return typed


def repaired(value: Any) -> Any:
    """Return a value that can be written as JSON, as much like the given one as can be."""
    return _Repair().value(value, 0)


class _Repair:
    """One repair: keeps count of the items, and of the containers that it is in the middle of."""

    def __init__(self) -> None:
        self._left = _MOST_ITEMS
        self._open: set[int] = set()

    def value(self, value: Any, depth: int) -> Any:
        try:
            return self._scalar(value) if _is_scalar(value) else self._container(value, depth)
        except Exception as error:  # noqa: BLE001 - a broken object of the application costs only itself
            return f"<{type(value).__name__}: {type(error).__name__} while it was read>"

    def _scalar(self, value: Any) -> Any:
        if value is None or isinstance(value, bool):
            return value

        if isinstance(value, int):
            return int(value) if abs(value) < _LARGEST_DECIMAL else hex(value)

        if isinstance(value, float):
            return float(value) if math.isfinite(value) else safe_repr(float(value))

        if isinstance(value, bytes | bytearray):
            return bytes(value).decode("utf-8", "backslashreplace")

        text = value if isinstance(value, str) else safe_str(value)
        return text.encode("utf-8", "backslashreplace").decode()

    def _container(self, value: Any, depth: int) -> Any:
        if id(value) in self._open:
            return "<circular>"

        if depth >= _DEEPEST:
            return f"<{type(value).__name__}: nested too deep>"

        self._open.add(id(value))

        try:
            if not isinstance(value, Mapping):
                return [self.value(item, depth + 1) for item in self._counted(value)]

            copy: dict[str, Any] = {}

            for key in self._counted(value):
                name = self._scalar(key) if isinstance(key, str) else safe_repr(key)

                while name in copy:  # 1 and "1" are two keys
                    name += "_"

                copy[name] = self.value(value[key], depth + 1)

            return copy
        finally:
            self._open.discard(id(value))

    def _counted(self, items: Any) -> Any:
        for item in items:
            if self._left <= 0:
                return

            self._left -= 1
            yield item


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, Mapping | list | tuple | set | frozenset)
