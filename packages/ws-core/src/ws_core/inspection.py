"""What the libraries in a process are doing, for whoever shows it: tasks, locks, slow statements.

A library publishes objects that can be inspected, by kind; an application layer lists them. What costs
something on a hot path is done only when it is wanted: `when_watched` is called then.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

__all__ = ("Actor", "Inspectable", "inspect", "publish", "published", "watch", "when_watched")


class Inspectable(Protocol):
    """An object that can say what it is doing."""

    def inspect(self) -> Sequence[Mapping[str, object]]:
        """Return what there is, as plain values without secrets; without I/O."""
        ...


@runtime_checkable
class Actor(Protocol):
    """An inspectable object that can be made to do something."""

    def act(self, action: str, name: str) -> bool:
        """Do something with one of the things it has shown; return whether it has that."""
        ...


_published: Final[dict[str, weakref.WeakSet[Inspectable]]] = {}
_starters: Final[list[Callable[[], object]]] = []
_lock: Final = threading.RLock()
_state: Final = {"watched": False}


def publish(kind: str, item: Inspectable) -> None:
    """
    Have an object shown for as long as it lives.

    Args:
        kind: What it shows, such as ``"tasks"``.
        item: The object; it is not kept alive.

    Example:
        >>> class Kettle:
        ...     def inspect(self):
        ...         return [{"name": "kettle", "state": "on"}]
        >>> kettle = Kettle()
        >>> publish("kettles", kettle)
        >>> inspect("kettles")
        [{'name': 'kettle', 'state': 'on'}]
    """
    with _lock:
        _published.setdefault(kind, weakref.WeakSet()).add(item)


def published(kind: str) -> list[Inspectable]:
    """
    Return the objects of a kind.

    Args:
        kind: As for `publish`.
    """
    with _lock:
        return list(_published.get(kind, ()))


def inspect(kind: str) -> list[Mapping[str, object]]:
    """
    Return what all objects of a kind show.

    Args:
        kind: As for `publish`.
    """
    return [row for item in published(kind) for row in item.inspect()]


def when_watched(start: Callable[[], object]) -> None:
    """
    Call a function once somebody watches this process; at once, when somebody does already.

    Args:
        start: Begins to note what `Inspectable` objects then show.
    """
    with _lock:
        _starters.append(start)
        watched = _state["watched"]

    if watched:
        start()


def watch() -> None:
    """Have all libraries note what they would not note otherwise. May be called again."""
    with _lock:
        starters = [] if _state["watched"] else list(_starters)
        _state["watched"] = True

    for start in starters:
        start()
