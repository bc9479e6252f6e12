"""Points in time as text, seconds since the epoch, and datetimes. Published by `wintersweet.utils.base`.

A time zone is an IANA name such as ``"Asia/Shanghai"``, a ``tzinfo``, or None for the zone of the
machine.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ws_core.errors import InvalidValueError, UsageError

TIME_FORMAT = "%Y-%m-%d %H:%M:%S"


def timestamp() -> int:
    """
    Return the seconds since the epoch, whole ones.

    Example:
        >>> timestamp() > 1_700_000_000
        True
    """
    return int(time.time())


def loop_time() -> float:
    """
    Return the running event loop's clock: seconds that never go back, from an unknown beginning.

    Raises:
        UsageError: No event loop is running in this thread.

    Example:
        ```python
        from wintersweet.utils.base import loop_time, wait_frame

        before = loop_time()
        await wait_frame()
        assert loop_time() >= before
        ```
    """
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError as error:
        raise UsageError("loop_time() needs a running event loop: call it from a coroutine") from error


def format_time(format: str = TIME_FORMAT, *, timezone: str | tzinfo | None = None) -> str:
    """
    Return the present time as text.

    Args:
        format: As for ``datetime.strftime``.
        timezone: The zone of the text.

    Example:
        >>> len(format_time())
        19
    """
    return stamp2time(time.time(), format, timezone=timezone)


def time2stamp(
    time_str: str,
    format_type: str = TIME_FORMAT,
    timezone: str | tzinfo | None = None,
    *,
    fold: Literal[0, 1] = 0,
) -> int:
    """
    Turn text into seconds since the epoch.

    Args:
        time_str: The time of a clock on the wall.
        format_type: As for ``datetime.strptime``; an offset in the text (``%z``) has precedence over
            ``timezone``.
        timezone: The zone of that clock.
        fold: Which one is meant when clocks are put back and show the time twice: 0 the first.

    Returns:
        Whole seconds; a fraction is cut off.

    Raises:
        InvalidValueError: The text does not match the format, or there is no such zone.

    Example:
        >>> time2stamp("2024-02-29 08:00:00", timezone="Asia/Shanghai")
        1709164800
    """
    return int(time2datetime(time_str, format_type, timezone, fold=fold).timestamp() // 1)


def time2datetime(
    time_str: str,
    format_type: str = TIME_FORMAT,
    timezone: str | tzinfo | None = None,
    *,
    fold: Literal[0, 1] = 0,
) -> datetime:
    """
    Turn text into a datetime.

    Args:
        time_str: The time of a clock on the wall.
        format_type: As for ``datetime.strptime``.
        timezone: The zone of that clock.
        fold: As in `time2stamp`.

    Returns:
        An aware datetime when the text or ``timezone`` names a zone; otherwise a naive one, in the
        zone of the machine.

    Raises:
        InvalidValueError: The text does not match the format, or there is no such zone.

    Example:
        >>> time2datetime("2024-02-29 08:00:00", timezone="Asia/Shanghai").isoformat()
        '2024-02-29T08:00:00+08:00'
    """
    zone = _zone(timezone)

    try:
        moment = datetime.strptime(time_str, format_type)  # noqa: DTZ007 - the zone follows
    except ValueError as error:
        raise InvalidValueError(
            f"{time_str!r} is not a time of the form {format_type!r}: {error}", text=time_str
        ) from error

    return moment.replace(tzinfo=moment.tzinfo or zone, fold=fold)


def stamp2time(
    time_int: float | None = None,
    format_type: str = TIME_FORMAT,
    timezone: str | tzinfo | None = None,
) -> str:
    """
    Turn seconds since the epoch into text.

    Args:
        time_int: The seconds; now by default.
        format_type: As for ``datetime.strftime``.
        timezone: The zone of the text.

    Raises:
        InvalidValueError: The seconds are beyond what a datetime holds, or there is no such zone.

    Example:
        >>> stamp2time(1709164800, timezone="Asia/Shanghai")
        '2024-02-29 08:00:00'
    """
    seconds = time.time() if time_int is None else time_int
    zone = _zone(timezone)

    try:
        moment = datetime.fromtimestamp(seconds, zone)  # aware, or naive in the machine's zone
    except (OverflowError, OSError, ValueError) as error:
        raise InvalidValueError(
            f"{seconds!r} seconds since the epoch is not a time: {error}", seconds=seconds
        ) from error

    return moment.strftime(format_type)


def datetime2time(datetime_time: datetime, format_type: str = TIME_FORMAT) -> str:
    """
    Turn a datetime into text.

    Args:
        datetime_time: Aware or naive; its own wall-clock time is written.
        format_type: As for ``datetime.strftime``.

    Example:
        >>> datetime2time(datetime(2024, 2, 29, 8, 0))
        '2024-02-29 08:00:00'
    """
    return datetime_time.strftime(format_type)


def delta_datetime(
    origin: bool = False,
    add: bool = True,
    *,
    timezone: str | tzinfo | None = None,
    now: datetime | None = None,
    **delta: float,
) -> datetime:
    """
    Return a time before or after now.

    With a zone, days and weeks are steps in the calendar, and shorter units are elapsed time, also
    where clocks are changed: a day later is the same hour on the wall, 24 hours later need not be.

    Args:
        origin: Return the beginning (00:00) of the day that is reached.
        add: False to go back.
        timezone: Return an aware datetime of this zone; by default a naive one of the machine's.
        now: Count from here, in place of the present time.
        **delta: As for ``timedelta``: days, weeks, hours, minutes, seconds, milliseconds,
            microseconds.

    Raises:
        InvalidValueError: There is no such zone, or the result is beyond what a datetime holds.

    Example:
        >>> delta_datetime(True, days=1, now=datetime(2024, 2, 28, 17, 30))
        datetime.datetime(2024, 2, 29, 0, 0)
    """
    zone = _zone(timezone)
    moment = datetime.now(zone) if now is None else now if zone is None else now.astimezone(zone)
    days = timedelta(days=delta.pop("days", 0.0), weeks=delta.pop("weeks", 0.0))
    rest = timedelta(**delta)

    if not add:
        days, rest = -days, -rest

    try:
        moment += days  # on the wall, for the zone stays what it is

        if moment.tzinfo is None:
            moment += rest
        elif rest:
            moment = datetime.fromtimestamp(moment.timestamp() + rest.total_seconds(), moment.tzinfo)
    except (OverflowError, OSError, ValueError) as error:
        raise InvalidValueError(f"{moment} plus {days + rest} is not a time: {error}") from error

    return moment.replace(hour=0, minute=0, second=0, microsecond=0, fold=0) if origin else moment


def _zone(timezone: str | tzinfo | None) -> tzinfo | None:
    if not isinstance(timezone, str):
        return timezone

    try:
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidValueError(
            f"{timezone!r} is not a known time zone: use an IANA name such as 'Asia/Shanghai'"
            " (a system without zone data needs: pip install tzdata)",
            timezone=timezone,
        ) from error
