"""Notify pools in a child process after a fork: their connections belong to the parent."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """A pool that must not use its connections in a child process."""

    def _forked(self) -> None: ...


_pools: WeakSet[Forkable] = WeakSet()


def register(pool: Forkable) -> None:
    """Have ``pool._forked()`` called in each child that the process forks from now on; held weakly."""
    _pools.add(pool)


def _after_fork() -> None:
    for pool in list(_pools):
        pool._forked()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
