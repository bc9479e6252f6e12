"""Tells pools that the process they live in is a copy: after a fork, the connections are the parent's."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ("register",)


class Forkable(Protocol):
    """What wants to know."""

    def _forked(self) -> None: ...


_watched: WeakSet[Forkable] = WeakSet()
_registered: list[bool] = []


def register(pool: Forkable) -> None:
    """
    Have ``pool._forked()`` called in each child that the process forks from now on.

    Args:
        pool: Is held weakly.
    """
    if not _registered and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)
        _registered.append(True)

    _watched.add(pool)


def _after_fork() -> None:
    for pool in list(_watched):
        pool._forked()  # noqa: SLF001 - the two are one mechanism
