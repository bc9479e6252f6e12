"""Small pure helpers, one function each, and all of them in the class `Utils`, as in the first wintersweet.

Addresses (`ip2int`, `int2ip`), points in time (`time2stamp`, `stamp2time`, `time2datetime`,
`datetime2time`, `format_time`, `delta_datetime`, `timestamp`, `loop_time`), text (`re_match`,
`split_int`), XML (`xml_encode`, `xml_decode`) and asyncio (`package_task`, `wait_frame`,
`install_uvloop`). What cannot be understood raises `ws_core.errors.InvalidValueError`, which is a
`ValueError`.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import hashlib
import importlib
import inspect
import ipaddress
import itertools
import math
import os
import random
import re
import sys
import textwrap
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeVar, cast, overload

from wintersweet.utils._time import (
    TIME_FORMAT,
    datetime2time,
    delta_datetime,
    format_time,
    loop_time,
    stamp2time,
    time2datetime,
    time2stamp,
    timestamp,
)
from wintersweet.utils._xml import XmlValue, xml_decode, xml_encode
from ws_core.errors import InvalidValueError, UsageError
from ws_logging import logger

if TYPE_CHECKING:
    from loguru import Logger  # exists for type checkers only

__all__ = (
    "TIME_FORMAT",
    "Utils",
    "XmlValue",
    "datetime2time",
    "delta_datetime",
    "format_time",
    "install_uvloop",
    "int2ip",
    "ip2int",
    "loop_time",
    "package_task",
    "re_match",
    "split_int",
    "stamp2time",
    "time2datetime",
    "time2stamp",
    "timestamp",
    "wait_frame",
    "xml_decode",
    "xml_encode",
)

P = ParamSpec("P")
R = TypeVar("R")


def ip2int(val: str) -> int:
    """
    Turn an IP address into a number.

    Args:
        val: An IPv4 or IPv6 address.

    Raises:
        InvalidValueError: It is neither.

    Example:
        >>> ip2int("127.0.0.1"), ip2int("::1")
        (2130706433, 1)
    """
    try:
        return int(ipaddress.ip_address(val))
    except ValueError as error:
        raise InvalidValueError(f"{val!r} is not an IP address", address=val) from error


def int2ip(val: int, *, version: Literal[4, 6] | None = None) -> str:
    """
    Turn a number into an IP address.

    Args:
        val: The number.
        version: 4 or 6; by default 4 for numbers that fit in 32 bits. Say 6 for numbers that come
            from IPv6, for the first of those addresses are small numbers too.

    Raises:
        InvalidValueError: The number is negative or too large for the version.

    Example:
        >>> int2ip(2130706433), int2ip(1, version=6)
        ('127.0.0.1', '::1')
    """
    kinds = {4: ipaddress.IPv4Address, 6: ipaddress.IPv6Address}

    try:
        return str(ipaddress.ip_address(val) if version is None else kinds[version](val))
    except ValueError as error:
        kind = "IP" if version is None else f"IPv{version}"
        raise InvalidValueError(f"{val!r} is not an {kind} address", number=val) from error


def re_match(pattern: str | re.Pattern[str], value: str) -> re.Match[str] | None:
    """
    Match a pattern at the beginning of a text.

    Example:
        >>> bool(re_match(r"[a-z]+", "abc1")), bool(re_match(r"[a-z]+", "1abc"))
        (True, False)
    """
    return re.match(pattern, value)


def split_int(val: str, sep: str = ",", minsplit: int = 0, maxsplit: int = -1) -> list[int]:
    """
    Read the whole numbers out of a separated text, leaving out all that is not a number.

    Args:
        val: The text.
        sep: What stands between the numbers.
        minsplit: Fill the result up with zeros to this length.
        maxsplit: Split no more than this many times; -1 for no limit.

    Example:
        >>> split_int("3, -4, x, ,5", minsplit=5)
        [3, -4, 5, 0, 0]
    """
    items = (item.strip() for item in val.split(sep, maxsplit))
    numbers = [int(item) for item in items if re.fullmatch(r"-?[0-9]+", item)]
    return numbers + [0] * (minsplit - len(numbers))


@overload
def package_task(
    func: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs
) -> Callable[[], Coroutine[Any, Any, R]]: ...


@overload
def package_task(
    func: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> Callable[[], Coroutine[Any, Any, R]]: ...


def package_task(
    func: Callable[..., object], *args: Any, **kwargs: Any
) -> Callable[..., Coroutine[Any, Any, Any]]:  # Any: the overloads say it
    """
    Make one kind of callable out of functions and coroutine functions.

    Args:
        func: Either kind; also anything callable that returns an awaitable.
        *args: For the function.
        **kwargs: For the function.

    Returns:
        A coroutine function, to be called as often as wanted; its own arguments come after those
        given here. A plain function runs in the event loop's thread, so it should be short.

    Example:
        ```python
        from wintersweet.utils.base import package_task

        task = package_task(divmod, 7, 2)
        assert await task() == (3, 1)
        assert await task() == (3, 1)
        ```
    """

    async def packaged(*more: Any, **options: Any) -> object:  # Any: whatever the function takes
        result = func(*args, *more, **{**kwargs, **options})
        return await result if inspect.isawaitable(result) else result

    return packaged


async def wait_frame(count: int = 10) -> None:
    """
    Let the event loop turn some times, so that others get on.

    Args:
        count: The number of turns.

    Example:
        ```python
        import asyncio
        from wintersweet.utils.base import wait_frame

        task = asyncio.create_task(asyncio.sleep(0, "done"))
        await wait_frame()
        assert task.done()
        ```
    """
    for _ in range(count):
        await asyncio.sleep(0)


def install_uvloop() -> bool:
    """
    Let `asyncio.run` use uvloop, if it is installed.

    Returns:
        Whether uvloop is used from now on; without it, asyncio's own loop stays.

    Raises:
        UsageError: An event loop is running already, so that this comes too late.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise UsageError(
            "install_uvloop() comes too late, the event loop is running: call it before asyncio.run()"
        )

    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return False

    policy = cast("asyncio.AbstractEventLoopPolicy", uvloop.EventLoopPolicy())
    asyncio.set_event_loop_policy(policy)
    return True


class Utils:
    """
    The helpers under one name, as in the first wintersweet; each is the function of that name.

    Example:
        >>> Utils.int2ip(Utils.ip2int("10.0.0.1"))
        '10.0.0.1'
    """

    log: Logger = logger

    # Modules that services of 1.x reached by this name.
    os: Final = os
    sys: Final = sys
    math: Final = math
    uuid: Final = uuid
    time: Final = time
    random: Final = random
    hashlib: Final = hashlib
    asyncio: Final = asyncio
    datetime: Final = dt
    textwrap: Final = textwrap
    traceback: Final = traceback
    itertools: Final = itertools
    functools: Final = functools

    ip2int: Final = staticmethod(ip2int)
    int2ip: Final = staticmethod(int2ip)
    time2stamp: Final = staticmethod(time2stamp)
    stamp2time: Final = staticmethod(stamp2time)
    datetime2time: Final = staticmethod(datetime2time)
    time2datetime: Final = staticmethod(time2datetime)
    timestamp: Final = staticmethod(timestamp)
    delta_datetime: Final = staticmethod(delta_datetime)
    loop_time: Final = staticmethod(loop_time)
    format_time: Final = staticmethod(format_time)
    re_match: Final = staticmethod(re_match)
    xml_encode: Final = staticmethod(xml_encode)
    xml_decode: Final = staticmethod(xml_decode)
    split_int: Final = staticmethod(split_int)
    wait_frame: Final = staticmethod(wait_frame)
    package_task: Any = staticmethod(cast("Any", package_task))  # Any: staticmethod takes no overloads
