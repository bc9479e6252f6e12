"""Checks of what users give, with messages that name the option."""

from __future__ import annotations

import math

from ws_tasks.errors import ScheduleError

__all__ = ("check_seconds", "check_whole")


def check_seconds(name: str, value: object, *, zero: bool = False) -> float:
    """
    Check a duration given by the user.

    Args:
        name: The option's name, for the message.
        value: Seconds.
        zero: Whether 0 is allowed.

    Returns:
        The duration as a float.

    Raises:
        ScheduleError: It is not a finite number, or not in the range.
    """
    if type(value) is float and 0.0 < value < math.inf:
        return value  # the usual case, at a fifth of the cost

    number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)

    if math.isfinite(number) and (number > 0 or (zero and number == 0)):
        return number

    bound = "0 or more" if zero else "more than 0"
    raise ScheduleError(f"{name}={value!r} is wrong: give {bound} seconds", option=name)


def check_whole(name: str, value: object, least: int) -> int:
    """
    Check a number of things given by the user.

    Args:
        name: The option's name, for the message.
        value: The number.
        least: The smallest one allowed.

    Returns:
        The number.

    Raises:
        ScheduleError: It is not a whole number, or too small.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value

    raise ScheduleError(f"{name}={value!r} is wrong: give a whole number, at least {least}", option=name)
