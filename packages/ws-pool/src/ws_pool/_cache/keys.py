"""The key of a call: equal for equal arguments, however they are passed."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID

from ws_pool.errors import UsageError

__all__ = ("KeyMaker", "shorten")

_SIMPLE = frozenset({str, int, float, bool, bytes, type(None)})
_EXACT = (datetime, date, time, timedelta, Decimal, UUID)
_LONGEST = 160


class KeyMaker:
    """
    Makes the key of a call of one function.

    Arguments are bound to parameters and defaults applied, so that ``f(1)``, ``f(a=1)`` and
    ``f()`` with a default of 1 are the same call. ``1``, ``True`` and ``"1"`` are different.

    Args:
        function: The function.

    Example:
        >>> make = KeyMaker(lambda a, b=2: None)
        >>> make((1,), {}) == make((), {"b": 2, "a": 1})
        True
        >>> make((1,), {}) == make((True,), {})
        False
    """

    __slots__ = ("_name", "_plain", "_signature")

    def __init__(self, function: Callable[..., object]) -> None:
        self._name = getattr(function, "__qualname__", repr(function))
        self._signature = inspect.signature(function)
        parameters = self._signature.parameters.values()
        positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
        # A call that gives all parameters by position needs no binding.
        self._plain = len(parameters) if all(p.kind in positional for p in parameters) else -1

    def __call__(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
        """
        Make the key.

        Raises:
            TypeError: The arguments do not fit the function.
            UsageError: An argument cannot be part of a key.
        """
        if kwargs or len(args) != self._plain:
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            args = tuple(bound.arguments.values())

        for value in args:
            if type(value) not in _SIMPLE:
                return repr(tuple(self._freeze(item) for item in args))

        return repr(args)

    def _freeze(self, value: object) -> object:
        """Make a value that has the same representation for equal values, and another for all others."""
        if type(value) in _SIMPLE:
            return value

        frozen: tuple[object, ...]

        if isinstance(value, list | tuple):
            frozen = tuple(self._freeze(item) for item in value)
        elif isinstance(value, Mapping):
            frozen = ("{}", *sorted((repr(self._freeze(k)), repr(self._freeze(v))) for k, v in value.items()))
        elif isinstance(value, AbstractSet):
            frozen = ("{,}", *sorted(repr(self._freeze(item)) for item in value))
        elif isinstance(value, Enum):
            frozen = (type(value).__qualname__, value.name)
        elif isinstance(value, _EXACT):
            frozen = (repr(value),)
        elif is_dataclass(value) and not isinstance(value, type):
            parts = tuple(self._freeze(getattr(value, item.name)) for item in fields(value))
            frozen = (type(value).__qualname__, *parts)
        else:
            message = (
                f"an argument of {self._name} is a {type(value).__qualname__}, which cannot be part of a "
                "cache key: give key=, a function of the same arguments"
            )
            raise UsageError(message, function=self._name)

        return frozen


def shorten(key: str) -> str:
    """
    Make a key fit for a server: long ones are replaced by their digest.

    Example:
        >>> shorten("(1, 2)")
        '(1, 2)'
        >>> len(shorten("x" * 1000))
        40
    """
    if len(key) <= _LONGEST:
        return key

    return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=20).hexdigest()
