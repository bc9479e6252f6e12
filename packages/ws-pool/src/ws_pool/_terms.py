"""What the two halves of a pool agree on: its state, its durations, its hooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar

__all__ = ("Hooks", "Options", "State")

T = TypeVar("T")


class State(Enum):
    """Where a pool is in its life."""

    NEW = auto()
    OPEN = auto()
    CLOSING = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class Options:
    """A pool's durations in seconds; see `ws_pool.pool.Pool`."""

    connect_timeout: float
    ping_after: float
    ping_timeout: float
    max_lifetime: float | None
    max_idle: float
    leak_threshold: float | None


@dataclass(frozen=True, slots=True)
class Hooks(Generic[T]):
    """What to call at a connection's turns; a hook that raises is logged, nothing more."""

    on_open: Callable[[T], object] | None = None
    on_acquire: Callable[[T], object] | None = None
    on_release: Callable[[T], object] | None = None
    on_close: Callable[[T], object] | None = None
