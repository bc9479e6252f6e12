"""What a pool says when there is no connection, and how long it rests between attempts at a dead server."""

from __future__ import annotations

from ws_pool._terms import State
from ws_pool.errors import AcquireTimeout, ClosedError, NotReadyError, UsageError

__all__ = ("MIN_BACKOFF", "QUICK_PROBE", "next_pause", "refusal", "say", "too_late")

QUICK_PROBE = 1.0  # seconds for an attempt beside a patient one, or where only one may be under way
MIN_BACKOFF = 0.05  # seconds until the first attempt after a failed one
_MAX_BACKOFF = 0.5  # seconds between attempts while the server is down: found again within 2 s
_MAX_REFUSED = 30.0  # seconds between attempts at a server that refuses us: a wrong password floods its log


def next_pause(pause: float, *, refused: bool) -> float:
    """
    Give the pause before the next attempt but one.

    Args:
        pause: The last pause in seconds.
        refused: Whether the server is up and refuses us.

    Example:
        >>> next_pause(0.05, refused=False), next_pause(0.5, refused=False), next_pause(0.5, refused=True)
        (0.1, 0.5, 1.0)
    """
    return min(_MAX_REFUSED if refused else _MAX_BACKOFF, pause * 2)


def say(error: BaseException) -> str:
    """
    Put an error into words.

    Args:
        error: Any error.

    Returns:
        Its text, or its type's name when it has none.
    """
    return str(error) or type(error).__name__


def refusal(name: str, state: State, *, forked: bool) -> UsageError:
    """
    Say why a pool cannot be used here and now.

    Args:
        name: The pool's.
        state: The pool's.
        forked: Whether this process is a child of the one that started the pool.
    """
    if state is State.NEW:
        message = f"pool {name!r} is not started: use `async with` or await its start()"
        return NotReadyError(message, pool=name)

    if state is not State.OPEN:
        return ClosedError(f"pool {name!r} is closed", pool=name)

    if forked:
        message = f"pool {name!r} was started before this process forked: start one in each process"
        return UsageError(message, pool=name)

    return UsageError(f"pool {name!r} belongs to another event loop: use it where it was started", pool=name)


def too_late(  # noqa: PLR0913 - keyword-only, and each is said
    name: str,
    *,
    seconds: float,
    size: int,
    max_size: int,
    waiting: int,
    holders: tuple[str, ...],
    failure: BaseException | None,
) -> AcquireTimeout:
    """
    Say that there was no connection in time, and who holds those that exist.

    Args:
        name: The pool's.
        seconds: How long was waited.
        size: Connections that exist.
        max_size: Most connections.
        waiting: How many wait.
        holders: Who holds connections, and how long.
        failure: Why the last connect failed, if it did.
    """
    details = [f"size {size} of {max_size}", f"{waiting} waiting"]

    if failure is not None:
        details.append(f"the last connect failed: {say(failure)}")

    if holders:
        details.append("longest holders: " + ", ".join(holders))

    return AcquireTimeout(
        f"pool {name!r}: no connection was free within {seconds:g} s ({'; '.join(details)})",
        pool=name,
        size=size,
        max_size=max_size,
        waiting=waiting,
        holders=holders,
    )
