"""The helpers of the original's class `Utils`; new code uses the functions of `ws_core.base` directly."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

from ws_core import base
from ws_core.base import TIME_FORMAT, XmlValue
from ws_logging import logger

if TYPE_CHECKING:
    from loguru import Logger  # exists for type checkers only

__all__ = ("Utils", "install_uvloop")

P = ParamSpec("P")


def install_uvloop() -> bool:
    """See `ws_core.base.install_uvloop`."""
    return base.install_uvloop()


class Utils:
    """
    Helpers under one name, as in the first wintersweet.

    Example:
        >>> Utils.int2ip(Utils.ip2int("10.0.0.1"))
        '10.0.0.1'
    """

    log: Logger = logger

    @staticmethod
    def ip2int(val: str) -> int:
        """Turn an IP address into a number."""
        return base.ip2int(val)

    @staticmethod
    def int2ip(val: int, *, version: Literal[4, 6] | None = None) -> str:
        """Turn a number into an IP address."""
        return base.int2ip(val, version=version)

    @staticmethod
    def time2stamp(
        time_str: str,
        format_type: str = TIME_FORMAT,
        timezone: str | tzinfo | None = None,
        *,
        fold: Literal[0, 1] = 0,
    ) -> int:
        """Turn text into seconds since the epoch."""
        return base.time2stamp(time_str, format_type, timezone, fold=fold)

    @staticmethod
    def stamp2time(
        time_int: float | None = None, format_type: str = TIME_FORMAT, timezone: str | tzinfo | None = None
    ) -> str:
        """Turn seconds since the epoch into text."""
        return base.stamp2time(time_int, format_type, timezone)

    @staticmethod
    def datetime2time(datetime_time: datetime, format_type: str = TIME_FORMAT) -> str:
        """Turn a datetime into text."""
        return base.datetime2time(datetime_time, format_type)

    @staticmethod
    def time2datetime(
        time_str: str,
        format_type: str = TIME_FORMAT,
        timezone: str | tzinfo | None = None,
        *,
        fold: Literal[0, 1] = 0,
    ) -> datetime:
        """Turn text into a datetime."""
        return base.time2datetime(time_str, format_type, timezone, fold=fold)

    @staticmethod
    def timestamp() -> int:
        """Return the seconds since the epoch, whole ones."""
        return base.timestamp()

    @staticmethod
    def delta_datetime(
        origin: bool = False,  # noqa: FBT001, FBT002 - the original's signature
        add: bool = True,  # noqa: FBT001, FBT002 - the original's signature
        *,
        timezone: str | tzinfo | None = None,
        now: datetime | None = None,
        **delta: float,
    ) -> datetime:
        """Return a time before or after now."""
        return base.delta_datetime(origin, add, timezone=timezone, now=now, **delta)

    @staticmethod
    def loop_time() -> float:
        """Return the running event loop's clock: seconds that never go back, from an unknown beginning."""
        return base.loop_time()

    @staticmethod
    def format_time(
        format: str = TIME_FORMAT,  # noqa: A002 - the original's name
        *,
        timezone: str | tzinfo | None = None,
    ) -> str:
        """Return the present time as text."""
        return base.format_time(format, timezone=timezone)

    @staticmethod
    def re_match(pattern: str | re.Pattern[str], value: str) -> re.Match[str] | None:
        """Match a pattern at the beginning of a text."""
        return base.re_match(pattern, value)

    @staticmethod
    def xml_encode(dict_val: Mapping[str, object], root_tag: str = "root") -> str:
        """Write a dictionary as XML."""
        return base.xml_encode(dict_val, root_tag)

    @staticmethod
    def xml_decode(val: str | bytes, *, strip: bool = True) -> dict[str, XmlValue]:
        """Read XML into a dictionary; safe with documents from anyone."""
        return base.xml_decode(val, strip=strip)

    @staticmethod
    def split_int(val: str, sep: str = ",", minsplit: int = 0, maxsplit: int = -1) -> list[int]:
        """Read the whole numbers out of a separated text, leaving out whatever is none."""
        return base.split_int(val, sep, minsplit, maxsplit)

    @staticmethod
    async def wait_frame(count: int = 10) -> None:
        """Let the event loop turn some times, so that others get on."""
        await base.wait_frame(count)

    @staticmethod
    def package_task(
        func: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> Callable[[], Coroutine[Any, Any, Any]]:  # Any: whatever the function returns
        """Make one kind of callable out of functions and coroutine functions."""
        return base.package_task(func, *args, **kwargs)
