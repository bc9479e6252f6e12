"""Dictionaries that cannot be changed, for the sections of settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

__all__ = ("FrozenDict", "frozen")


class FrozenDict(dict[Any, Any]):  # Any: sections hold what their libraries define
    """A dictionary that refuses changes; copies of it are ordinary dictionaries."""

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        message = "settings are frozen: use `settings.replace(...)`, or in tests `settings.override(...)`"
        raise TypeError(message)

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __copy__(self) -> dict[Any, Any]:
        return dict(self)

    def __deepcopy__(self, memo: object) -> dict[Any, Any]:
        return thawed(self)  # type: ignore[no-any-return]  # a dictionary stays one

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    copy = __copy__


def frozen(value: Any) -> Any:  # Any: any value is returned as it came
    """Return the value with its dictionaries frozen."""
    if isinstance(value, Mapping):
        return FrozenDict({key: frozen(item) for key, item in value.items()})

    return [frozen(item) for item in value] if type(value) is list else value


def thawed(value: Any) -> Any:  # Any: see frozen
    """Return the value with ordinary dictionaries."""
    if isinstance(value, Mapping):
        return {key: thawed(item) for key, item in value.items()}

    return [thawed(item) for item in value] if type(value) is list else value
