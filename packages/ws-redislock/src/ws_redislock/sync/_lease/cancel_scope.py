"""The body of a ``hold()`` in a thread, which nobody can cancel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

__all__ = ("CancelScope", "all_done", "current_flow")

T = TypeVar("T")


def current_flow() -> object:
    """Return what a reentrant lock belongs to: the running thread."""
    return threading.get_ident()


def all_done(calls: Iterable[Callable[[], T]]) -> list[T | BaseException]:
    """Make calls one after the other; return what each gave or raised, in their order."""
    outcomes: list[T | BaseException] = []

    for call in calls:
        try:
            outcomes.append(call())
        except BaseException as error:  # noqa: BLE001 - the others are made all the same
            outcomes.append(error)

    return outcomes


class CancelScope:
    """The body of one ``hold()``: it must ask ``check()`` by itself, and hears of a loss at its end."""

    __slots__ = ()

    def cancel(self, reason: str) -> None:
        """Leave the body alone: a thread cannot be cancelled."""

    def leave(self, error: BaseException | None) -> bool:  # noqa: ARG002 - the twin's signature
        """Leave the body; its error is always its own."""
        return False
