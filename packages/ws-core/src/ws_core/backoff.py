"""How long to wait before the next attempt: exponential backoff with jitter. Pure; nothing sleeps here.

Clients that failed together must not try again together, so a part of each delay is random. The
random numbers come from a generator of this module: a library that draws from the global one moves
the numbers of programs and tests that have seeded it.

See "Exponential Backoff And Jitter" in the AWS Architecture Blog (Marc Brooker, 2015).
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

__all__ = ("delay", "spread")

_generator = random.Random()
_MOST_DOUBLINGS = 64  # beyond any sensible `most`, and far from overflow

if hasattr(os, "register_at_fork"):
    # Workers forked from one parent would otherwise draw the same numbers and retry in step.
    os.register_at_fork(after_in_child=_generator.seed)


def delay(
    attempt: int,
    first: float,
    most: float,
    *,
    jitter: float = 0.5,
    draw: Callable[[], float] = _generator.random,
) -> float:
    """
    Return the seconds to wait after a failed attempt.

    The delay doubles with each attempt up to ``most``; then the random share of ``jitter`` is taken
    off. Half of it (the default) keeps a distance to a server that has just failed; 1.0 ("full
    jitter") spreads contenders best; 0.0 is not random at all.

    Args:
        attempt: The number of the attempt that failed, from 1; smaller numbers count as 1.
        first: Seconds after the first attempt, before jitter.
        most: Upper bound in seconds.
        jitter: The random share of the delay, from 0.0 to 1.0.
        draw: Returns a random number from 0.0 to 1.0; for tests.

    Returns:
        Seconds, at most ``most``.

    Example:
        >>> [delay(attempt, 0.1, 1.0, jitter=0.0) for attempt in (1, 2, 3, 4, 5, 1000)]
        [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
        >>> delay(1, 0.1, 1.0, draw=lambda: 1.0), delay(1, 0.1, 1.0, draw=lambda: 0.0)
        (0.05, 0.1)
    """
    whole: float = min(most, first * 2.0 ** min(max(attempt, 1) - 1, _MOST_DOUBLINGS))
    return whole * (1.0 - jitter * draw()) if jitter else whole


def spread(
    seconds: float, low: float, high: float, *, draw: Callable[[], float] = _generator.random
) -> float:
    """
    Return a period multiplied by a random factor, so that peers do not act at the same time.

    Args:
        seconds: The period.
        low: The smallest factor.
        high: The largest factor.
        draw: Returns a random number from 0.0 to 1.0; for tests.

    Example:
        >>> spread(10.0, 0.75, 1.25, draw=lambda: 0.5)
        10.0
    """
    return seconds * (low + (high - low) * draw())
