"""Keep secrets out of logs: by the names of fields, and inside URLs and ``name=value`` texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

__all__ = ("DEFAULT_NAMES", "MASK", "Redactor")

MASK: Final = "***"

DEFAULT_NAMES: Final = frozenset(
    {
        "access_token",
        "api_key",
        "apikey",
        "authorization",
        "cookie",
        "credentials",
        "dsn",
        "passwd",
        "password",
        "private_key",
        "pwd",
        "refresh_token",
        "secret",
        "secret_key",
        "set_cookie",
        "token",
    }
)
"""Names of fields whose values are never logged, in lower case with underscores."""

_URL_PASSWORD = re.compile(r"([a-z][a-z0-9+.\-]*://[^/\s:@]*:)[^/\s]+(?=@)", re.IGNORECASE)
_DEEPEST = 6


class Redactor:
    """
    Mask secret values.

    Args:
        names: Names of secret fields; case, and dashes for underscores, make no difference.

    Example:
        >>> hide = Redactor()
        >>> hide.fields({"user": "ann", "Password": "hunter2", "db": {"dsn": "x"}})
        {'user': 'ann', 'Password': '***', 'db': {'dsn': '***'}}
        >>> hide.text("connecting to mysql://root:hunter2@db/shop?token=abc")
        'connecting to mysql://root:***@db/shop?token=***'
    """

    __slots__ = ("_names", "_pairs")

    def __init__(self, names: Iterable[str] = DEFAULT_NAMES) -> None:
        self._names = frozenset(_plain(name) for name in names)
        words = "|".join(
            re.escape(name).replace("_", "[_-]") for name in sorted(self._names, key=len, reverse=True)
        )
        # Fits password=x and password: x, quoted or not, and Authorization: Bearer x.
        self._pairs: Callable[[str], str] | None = None

        if words:
            pattern = re.compile(
                rf"""(?P<head>(?<![a-z0-9])(?:[a-z0-9]+[_-])?(?:{words})["']?\s*[=:]\s*)"""
                rf"""(?P<value>"[^"]*"|'[^']*'|(?:bearer|basic)\s+[^\s,;]+|[^\s,;&]+)""",
                re.IGNORECASE,
            )
            self._pairs = lambda text: pattern.sub(rf"\g<head>{MASK}", text)

    def fields(self, values: Mapping[str, object]) -> dict[str, object]:
        """
        Return a copy of named values with the secret ones masked, however deep they are.

        Args:
            values: Values by name; mappings, lists and tuples in them are gone through.
        """
        return {name: self._value(name, value, 0) for name, value in values.items()}

    def text(self, text: str) -> str:
        """
        Return a text with passwords in URLs and values of secret names masked.

        Args:
            text: Any text.
        """
        if "://" in text:
            text = _URL_PASSWORD.sub(rf"\1{MASK}", text)

        if self._pairs is not None and ("=" in text or ":" in text):
            text = self._pairs(text)

        return text

    def _value(self, name: object, value: object, depth: int) -> object:
        if isinstance(name, str) and self._is_secret(name):
            return MASK

        if isinstance(value, str):
            return _URL_PASSWORD.sub(rf"\1{MASK}", value) if "://" in value else value

        if depth >= _DEEPEST:
            return value

        if isinstance(value, Mapping):
            return {key: self._value(key, item, depth + 1) for key, item in value.items()}

        if isinstance(value, list | tuple):
            return [self._value(None, item, depth + 1) for item in value]

        return value

    def _is_secret(self, name: str) -> bool:
        plain = _plain(name)
        return plain in self._names or any(plain.endswith(f"_{secret}") for secret in self._names)


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
