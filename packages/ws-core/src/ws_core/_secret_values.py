"""Mask secrets in values: what has fields is gone through, and texts are masked as texts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from ws_core._secret_names import SecretNames
from ws_core._secret_text import MASK, TextMasker

# Any below: values of the application, of any type.

_NAME = re.compile(r"[\w.\- ]{1,64}")
_VALUES: Final = ("value", "val")
_DEEPEST: Final = 16  # levels of nesting that are gone through
_MOST: Final = 20_000  # items that are copied of one value; the rest is left out, with a mark


class ValueMasker:
    """Masks values by their names and their texts."""

    def __init__(self, names: SecretNames, text: TextMasker) -> None:
        self._names = names
        self._text = text

    def mask(self, name: object, value: Any) -> Any:
        """Return a masked copy of a value."""
        kind = type(value)

        # The plain values first: they are nearly all of the fields of a log message.
        if value is None or kind is bool:
            return value

        if name and self.is_secret(name):
            return _hidden(value)

        if kind is str:
            return self._text.mask(value)

        if kind is int or kind is float:
            return value

        return _Walk(self).copy(value, 0)

    def is_secret(self, name: object) -> bool:
        if isinstance(name, bytes):
            name = name.decode("latin-1")

        return isinstance(name, str) and self._names.matches(name)

    def encoded(self, value: bytes) -> bytes:
        """Return masked bytes; those that are not UTF-8 come back as they were otherwise."""
        text = value.decode("utf-8", "surrogateescape")
        masked = self._text.mask(text)
        return value if masked == text else masked.encode("utf-8", "surrogateescape")

    def named_value(self, fields: Mapping[Any, Any]) -> tuple[str, ...]:
        """Return the keys of the value in ``{"name": "password", "value": "x"}``."""
        if not any(key in fields for key in _VALUES):
            return ()

        names = (fields[key] for key in ("name", "key", "header") if key in fields)
        return _VALUES if any(self.pair((name, None)) for name in names) else ()

    def pair(self, items: Any) -> bool:
        """Return whether a sequence is the name and value of a secret, as headers are given in lists."""
        if len(items) != 2 or not isinstance(items[0], str | bytes):
            return False

        name = items[0].decode("latin-1") if isinstance(items[0], bytes) else items[0]
        return _NAME.fullmatch(name) is not None and self.is_secret(name)


class _Walk:
    """One copy of a value: keeps count of the items, and of the containers it is in the middle of."""

    def __init__(self, masker: ValueMasker) -> None:
        self._masker = masker
        self._left = _MOST
        self._open: set[int] = set()

    def copy(self, value: Any, depth: int) -> Any:
        """Return a masked copy; what cannot be gone through is a text that says so."""
        if value is None or isinstance(value, bool | int | float):
            return value

        if isinstance(value, str):
            return self._masker.mask("", str(value))

        if isinstance(value, bytes | bytearray):
            return self._masker.encoded(bytes(value))

        try:
            return self._container(value, depth)
        except Exception as error:  # noqa: BLE001 - a broken object of the application must not cost the rest
            return f"<{type(value).__name__}: {type(error).__name__} while it was read>"

    def _container(self, value: Any, depth: int) -> Any:
        """Return a masked copy of what has parts, and anything else as it is."""
        if _is_wrapper(value):
            return _hidden(value)

        fields = _fields(value, self._masker.is_secret)

        if fields is None and not isinstance(value, _SEQUENCES):
            return value

        if id(value) in self._open:
            return "<circular>"

        if depth >= _DEEPEST:
            return f"<{type(value).__name__}: nested too deep>"

        self._open.add(id(value))

        try:
            return self._sequence(value, depth) if fields is None else self._mapping(fields, depth)
        finally:
            self._open.discard(id(value))

    def _mapping(self, fields: Any, depth: int) -> dict[Any, Any]:
        copy: dict[Any, Any] = {}
        secret = self._masker.named_value(fields)

        for key, item in fields.items():
            if self._left <= 0:
                copy["..."] = f"{len(fields) - len(copy)} more"
                break

            self._left -= 1
            name = self._key(key, depth)

            while name in copy and name != key:  # two keys that became the same one by masking
                name = f"{name}_"

            copy[name] = _hidden(item) if key in secret else self._item(key, item, depth)

        return copy

    def _key(self, key: Any, depth: int) -> Any:
        """Return a key that may hold a secret itself."""
        if type(key) is str:
            return self._masker.mask("", key)

        return safe if type(key) is tuple and (safe := self.copy(key, depth + 1)) != key else key

    def _item(self, key: object, item: Any, depth: int) -> Any:
        plain = item is None or isinstance(item, bool | int | float | str)
        secret = not isinstance(item, bool) and self._masker.is_secret(key)
        return self._masker.mask(key, item) if plain or secret else self.copy(item, depth + 1)

    def _sequence(self, items: Any, depth: int) -> Any:
        kind = list if isinstance(items, list) else type(items) if type(items) in _PLAIN else tuple

        if isinstance(items, list | tuple) and self._masker.pair(items):
            return kind((items[0], _hidden(items[1])))

        copy: list[Any] = []
        option = False  # whether the item before was an option of a command that takes a secret

        for item in items:
            if self._left <= 0:
                copy.append(f"... {len(items) - len(copy)} more")
                break

            self._left -= 1
            is_text = isinstance(item, str)
            copy.append(MASK if option and is_text and item[:1] != "-" else self.copy(item, depth + 1))
            option = is_text and item[:1] == "-" and "=" not in item and self._masker.is_secret(item)

        try:
            return kind(copy)
        except TypeError:  # a set of what has become dictionaries
            return copy


_SEQUENCES: Final = (list, tuple, set, frozenset)
_PLAIN: Final = (tuple, set, frozenset)


def _fields(value: Any, is_secret: Callable[[object], bool]) -> Mapping[Any, Any] | None:
    """Return the named parts of a value, or None when it has none; without those that its repr leaves out."""
    if isinstance(value, Mapping):
        return value

    kind = type(value)

    if dataclasses.is_dataclass(kind):
        return {one.name: getattr(value, one.name, None) for one in dataclasses.fields(kind) if one.repr}

    if isinstance(value, tuple):
        names = getattr(kind, "_fields", ())
        return {name: getattr(value, name, None) for name in names} or None

    if hasattr(kind, "__attrs_attrs__"):
        shown = [one for one in kind.__attrs_attrs__ if one.repr]
        parts = {one.name: getattr(value, one.name, None) for one in shown}
        return parts | {one.name: one.repr(parts[one.name]) for one in shown if callable(one.repr)}

    if not hasattr(kind, "__pydantic_fields__"):
        return None

    fields: dict[str, Any] = dict(getattr(value, "__pydantic_extra__", None) or {})

    for name, info in kind.__pydantic_fields__.items():
        if getattr(info, "repr", True):
            part = getattr(value, name, None)
            fields[name] = _hidden(part) if is_secret(getattr(info, "alias", None)) else part

    return fields


def _is_wrapper(value: Any) -> bool:
    """Return whether a value is made to hide another, like pydantic's SecretStr and Starlette's Secret."""
    kind = type(value)
    return hasattr(kind, "get_secret_value") or kind.__name__.startswith("Secret")


def _hidden(value: Any) -> Any:
    """Return the mask; what is empty or a switch hides nothing, and shows that it is empty."""
    if value is None or isinstance(value, bool):
        return value

    if hasattr(type(value), "get_secret_value"):  # pydantic's SecretStr and SecretBytes
        value = value.get_secret_value()

    try:
        return value if isinstance(value, str | bytes | list | tuple | dict) and not value else MASK
    except Exception:  # noqa: BLE001 - a broken __len__ or __bool__ of the application
        return MASK
