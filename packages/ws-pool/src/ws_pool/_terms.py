"""What the two halves of a pool agree on: its state, its durations, its hooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar

from ws_pool.errors import UsageError

__all__ = ("Hooks", "Options", "State", "check_numbers")

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
    is_refusal: Callable[[BaseException], bool] | None = None


@dataclass(frozen=True, slots=True)
class Hooks(Generic[T]):
    """What to call at a connection's turns; a hook that raises is logged, nothing more."""

    on_open: Callable[[T], object] | None = None
    on_acquire: Callable[[T], object] | None = None
    on_release: Callable[[T], object] | None = None
    on_close: Callable[[T], object] | None = None


def check_numbers(*, min_size: int, max_size: int, max_connecting: int) -> None:
    """
    Check that a pool's bounds fit together.

    Args:
        min_size: Connections kept open.
        max_size: Most connections.
        max_connecting: Most connections to open at once.

    Raises:
        UsageError: They don't.
    """
    if not 0 <= min_size <= max_size or max_size < 1 or max_connecting < 1:
        message = (
            "a pool needs 0 <= min_size <= max_size, max_size >= 1 and max_connecting >= 1, "
            f"not min_size={min_size}, max_size={max_size}, max_connecting={max_connecting}"
        )
        raise UsageError(message)
