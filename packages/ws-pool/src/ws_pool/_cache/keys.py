"""The key of a call: equal for equal arguments, however they are passed."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import weakref
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from ws_pool.errors import UsageError

_SIMPLE = frozenset({str, int, float, bool, bytes, type(None)})
_EXACT = (datetime, date, time, timedelta, Decimal, UUID)
_LONGEST = 160  # characters of a key in Redis; longer ones are hashed


class KeyMaker:
    """
    Makes the key of a call of one function.

    Arguments are bound to parameters and defaults applied, so that ``f(1)``, ``f(a=1)`` and
    ``f()`` with a default of 1 are the same call. ``1``, ``True`` and ``"1"`` are different. With
    ``identities`` a method's object may stand for itself.

    Example:
        >>> make = KeyMaker(lambda a, b=2: None)
        >>> make((1,), {}) == make((), {"b": 2, "a": 1})
        True
        >>> make((1,), {}) == make((True,), {})
        False
    """

    def __init__(self, function: Callable[..., object], *, identities: bool = True) -> None:
        self._name = getattr(function, "__qualname__", repr(function))
        self._signature = inspect.signature(function)
        parameters = self._signature.parameters.values()
        self._is_method = next(iter(self._signature.parameters), "") in {"self", "cls"}
        self._identities = Identities() if identities else None
        positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
        # A call that gives all parameters by position needs no binding.
        self._plain = len(parameters) if all(p.kind in positional for p in parameters) else -1

    def __call__(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
        """Make the key, or raise UsageError when an argument cannot be part of one."""
        if kwargs or len(args) != self._plain:
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            args = tuple(bound.arguments.values())

        for value in args:
            if type(value) not in _SIMPLE:
                break
        else:
            return repr(args)

        if self._is_method:
            return repr((self._freeze_self(args[0]), *(self._freeze(item) for item in args[1:])))

        return repr(tuple(self._freeze(item) for item in args))

    def _freeze_self(self, owner: object) -> object:
        """Return what a method's object adds to the key."""
        if isinstance(owner, type):
            return ("class", owner.__module__, owner.__qualname__)

        # Three cases: the object has a value, by which others may be equal to it; it has no state, so
        # that its class says all; or it stands for itself, which other processes cannot understand.
        if hasattr(owner, "__cache_key__") or is_dataclass(owner) or type(owner) in _SIMPLE:
            return self._freeze(owner)

        if _is_stateless(owner):
            return (_name(owner),)

        if self._identities is not None:
            return (_name(owner), self._identities.number(owner))

        message = (
            f"{self._name} is a method, and its results are shared: give {type(owner).__qualname__} a method "
            "__cache_key__() that returns what its results depend on, or give key="
        )
        raise UsageError(message, function=self._name)

    def _freeze(self, value: object) -> object:
        """Return a value that has the same representation for equal values, and another for all others."""
        if type(value) in _SIMPLE:
            return value

        frozen: tuple[object, ...]

        # Each begins with what it is, which no other kind begins with.
        if isinstance(value, list | tuple):
            frozen = ("()", *(self._freeze(item) for item in value))
        elif isinstance(value, Mapping):
            frozen = ("{}", *sorted((repr(self._freeze(k)), repr(self._freeze(v))) for k, v in value.items()))
        elif isinstance(value, AbstractSet):
            frozen = ("{,}", *sorted(repr(self._freeze(item)) for item in value))
        elif isinstance(value, Enum):
            frozen = (_name(value), value.name)
        elif isinstance(value, _EXACT):
            frozen = ("=", repr(value))
        elif callable(own_key := getattr(value, "__cache_key__", None)):
            frozen = (_name(value), self._freeze(own_key()))
        elif is_dataclass(value) and not isinstance(value, type):
            parts = tuple(self._freeze(getattr(value, item.name)) for item in fields(value))
            frozen = (_name(value), *parts)
        else:
            message = (
                f"an argument of {self._name} is a {type(value).__qualname__}, which cannot be part of a "
                "cache key: give key=, a function of the same arguments"
            )
            raise UsageError(message, function=self._name)

        return frozen


class _Plain:
    """What an object without any state of its own looks like."""


def _is_stateless(owner: object) -> bool:
    """Return whether an object has neither attributes nor the state of a built-in class, such as a dict."""
    kind = type(owner)
    return (
        not getattr(owner, "__dict__", None)
        and not hasattr(kind, "__slots__")
        and (kind.__basicsize__, kind.__itemsize__) == (_Plain.__basicsize__, _Plain.__itemsize__)
    )


def _name(value: object) -> str:
    """Return the name of a value's class, with its module."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


class Identities:
    """Numbers for objects: the same while an object lives, and never used again."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[object], int]] = {}
        self._numbers = itertools.count(1)

    def number(self, value: object) -> int:
        """Return an object's number."""
        # Not a WeakKeyDictionary, to which objects that compare equal would be the same.
        key = id(value)
        known = self._known.get(key)

        if known is not None and known[0]() is value:
            return known[1]

        number = next(self._numbers)

        if not type(value).__weakrefoffset__:
            message = (
                f"a {type(value).__qualname__} looks like every other of its class: give it a method "
                "__cache_key__(), or __weakref__ among its __slots__"
            )
            raise UsageError(message)

        def forget(gone: weakref.ref[object]) -> None:
            if (found := self._known.get(key)) is not None and found[0] is gone:
                del self._known[key]

        self._known[key] = (weakref.ref(value, forget), number)
        return number


def own_key_text(function: Callable[..., object], args: tuple[object, ...], kwargs: Mapping[str, Any]) -> str:
    """Return the key that a user's function makes; keys of other types might be equal, such as 1 and True."""
    text = function(*args, **kwargs)

    if isinstance(text, str):
        return text

    if inspect.iscoroutine(text):
        text.close()

    raise UsageError(f"key= must return text, not {type(text).__name__}: write str(…)")


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
