"""Dictionaries and lists that cannot be changed, for the sections of settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn


def _refuse(self: object, *_: object, **__: object) -> NoReturn:
    raise TypeError("settings are frozen: use `settings.replace(...)`, or in tests `settings.override(...)`")


class FrozenDict(dict[Any, Any]):  # Any: sections hold what their libraries define
    """A dictionary that refuses changes; copies of it are ordinary dictionaries."""

    __slots__ = ()

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __copy__(self) -> dict[Any, Any]:
        return dict(self)

    def __deepcopy__(self, memo: object) -> dict[Any, Any]:
        return thawed(self)  # type: ignore[no-any-return]  # a dictionary stays one

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    copy = __copy__


class FrozenList(list[Any]):  # Any: as above
    """A list that refuses changes; copies of it are ordinary lists."""

    __slots__ = ()

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __copy__(self) -> list[Any]:
        return list(self)

    def __deepcopy__(self, memo: object) -> list[Any]:
        return thawed(self)  # type: ignore[no-any-return]  # a list stays one

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)

    copy = __copy__


def frozen(value: Any) -> Any:  # Any: any value is returned as it came
    """Return the value with its dictionaries, lists and sets frozen."""
    if isinstance(value, Mapping):
        return FrozenDict({key: frozen(item) for key, item in value.items()})

    if type(value) is list:
        return FrozenList(frozen(item) for item in value)

    return frozenset(value) if type(value) is set else value


def thawed(value: Any) -> Any:  # Any: see frozen
    """Return the value with ordinary dictionaries."""
    if isinstance(value, Mapping):
        return {key: thawed(item) for key, item in value.items()}

    return [thawed(item) for item in value] if type(value) in (list, FrozenList) else value
