"""The errors of ws-web, and the codes of an application's own errors.

They hang in the tree of `ws_core.errors`::

    WsError
    ├── ConfigError
    │   └── SettingsError              settings are wrong: a value, a name, a file or a module
    └── UsageError
        └── SocketLimitError           no room for another WebSocket
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import ClassVar, Self

from ws_core.errors import ConfigError, UsageError
from ws_web._negotiation import preferred_language

__all__ = ("ErrorCode", "SettingsError", "SocketLimitError")


class SettingsError(ConfigError):
    """Settings are wrong. The message names each setting, where it came from and the remedy."""

    default_code = "settings"


class SocketLimitError(UsageError):
    """The connection manager is full; the new WebSocket was refused, the others are untouched."""

    default_code = "socket_limit"


_owners: dict[int | str, type[ErrorCode]] = {}


class ErrorCode(Enum):
    """
    The codes of an application's errors: subclass it, one member for each.

    A member is the code, the text for people, the HTTP status (400 unless given), and the same text in
    other languages, by language tag. A code is unique in the whole process: two members with
    the same code are refused when their class is made. Name the language of the texts themselves as
    ``class ShopError(ErrorCode, language="zh")``; by default it is ``en``.

    Raise one as ``ErrResponse(code=ShopError.SOLD_OUT)``; the text is in the language that the client's
    ``Accept-Language`` prefers. Declare those of a route with ``errors=[ShopError.SOLD_OUT]``: OpenAPI
    lists them.

    Raises:
        UsageError: A code is used twice, is 0 (success) or an HTTP status, or a status is not of an error.

    Example:
        >>> class BookError(ErrorCode):
        ...     OUT_OF_PRINT = 7001, "Out of print", 410, {"de": "Vergriffen"}
        >>> BookError.OUT_OF_PRINT.value, BookError.OUT_OF_PRINT.status_code, BookError.OUT_OF_PRINT.msg
        (7001, 410, 'Out of print')
    """

    language: ClassVar[str]

    text: str
    status_code: int
    texts: Mapping[str, str]

    def __new__(
        cls, code: int | str, text: str = "", status_code: int = 400, texts: Mapping[str, str] | None = None
    ) -> Self:
        """Check and register one code; a text is wanted, but type checkers see look-ups here too."""
        if not text:
            raise UsageError(f"{cls.__qualname__}: code {code!r} has no text for people")

        _register(cls, code, status_code)
        member = object.__new__(cls)
        member._value_ = code
        member.text = text
        member.status_code = status_code
        member.texts = dict(texts or {})
        return member

    def __init_subclass__(cls, *, language: str = "en") -> None:
        super().__init_subclass__()
        cls.language = language

    @property
    def msg(self) -> str:
        """The text in the language that the client of the current request prefers."""
        chosen = preferred_language(self.texts, self.language)
        return self.text if chosen is None else self.texts[chosen]


def _register(cls: type[ErrorCode], code: int | str, status_code: int) -> None:
    """Refuse a code that has another meaning already."""
    name = cls.__qualname__

    if type(code) not in (int, str) or code in (0, ""):
        raise UsageError(f"{name}: an error's code is a text or a number other than 0, not {code!r}")

    if isinstance(code, int) and 100 <= code <= 599:
        raise UsageError(
            f"{name}: code {code} is an HTTP status, which HTTPException uses: choose 1000 or above"
        )

    if not 400 <= status_code <= 599:
        raise UsageError(f"{name}: the status of code {code} must be from 400 to 599, not {status_code}")

    owner = _owners.get(code)
    again = (cls.__module__, name) == (getattr(owner, "__module__", ""), getattr(owner, "__qualname__", ""))

    # A module that is loaded anew makes its classes anew.
    if owner is not None and (owner is cls or not again):
        raise UsageError(
            f"{name}: code {code} is taken by {owner.__module__}.{owner.__qualname__}: a code means one error"
        )

    _owners[code] = cls
