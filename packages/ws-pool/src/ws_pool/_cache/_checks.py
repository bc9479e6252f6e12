"""Checks of numbers given to caches."""

from __future__ import annotations

import math

from ws_pool.errors import ConfigError

__all__ = ("check",)


def check(name: str, value: object, *, more_than: float | None = None, at_most: float = math.inf) -> None:
    """
    Check a number.

    Args:
        name: The option's name, for the message.
        value: The number.
        more_than: A bound it must exceed; without it, it must be 0 or more.
        at_most: A bound it must not exceed.

    Raises:
        ConfigError: It is not a finite number within the bounds.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        enough = value >= 0 if more_than is None else value > more_than

        if enough and value <= at_most:
            return

    low = "0 or more" if more_than is None else f"more than {more_than:g}"
    high = "" if at_most == math.inf else f", at most {at_most:g}"
    raise ConfigError(f"{name}={value!r} is wrong: give {low}{high}", option=name)
