"""The small helpers: addresses, text, asyncio."""

from __future__ import annotations

import asyncio
import functools
import importlib
import ipaddress
import sys
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wintersweet.utils.base import (
    install_uvloop,
    int2ip,
    ip2int,
    loop_time,
    package_task,
    re_match,
    split_int,
    wait_frame,
)
from ws_core.errors import InvalidValueError, UsageError


class TestAddresses:
    """`ip2int` and `int2ip`."""

    @pytest.mark.parametrize(
        ("text", "number"),
        [
            ("0.0.0.0", 0),
            ("255.255.255.255", 2**32 - 1),
            ("::ffff:1.2.3.4", 0xFFFF01020304),
            ("2001:db8::", 0x20010DB8 << 96),
        ],
    )
    def test_both_ways(self, text: str, number: int) -> None:
        """Addresses of both versions become numbers and return."""
        assert ip2int(text) == number
        assert ipaddress.ip_address(int2ip(number)) == ipaddress.ip_address(text)

    @given(st.integers(0, 2**128 - 1))
    def test_every_ipv6_address_returns(self, number: int) -> None:
        """With version 6, small numbers are IPv6 addresses too."""
        assert ip2int(int2ip(number, version=6)) == number

    def test_version_is_told_by_size(self) -> None:
        """Without a version, what fits in 32 bits is IPv4."""
        assert (int2ip(1), int2ip(1, version=6), int2ip(2**32)) == ("0.0.0.1", "::1", "::1:0:0")

    @pytest.mark.parametrize(
        "text", ["", "1.2.3", "256.1.1.1", "1.2.3.4/8", "::1%é\0x y/8", "localhost", "01.2.3.4"]
    )
    def test_bad_addresses(self, text: str) -> None:
        """A text that is not an address is named in the error."""
        with pytest.raises(InvalidValueError, match="is not an IP address"):
            ip2int(text)

    @pytest.mark.parametrize(
        ("number", "version"), [(-1, None), (2**128, None), (2**32, 4), (2**128, 6), (-1, 6)]
    )
    def test_bad_numbers(self, number: int, version: None) -> None:
        """Numbers that are out of range are named in the error."""
        with pytest.raises(InvalidValueError, match=f"{number} is not an IP"):
            int2ip(number, version=version)


class TestText:
    """`re_match` and `split_int`."""

    def test_re_match(self) -> None:
        """The match is at the beginning, and is given back."""
        match = re_match(r"(\w+)@", "me@here")

        assert match is not None
        assert match.group(1) == "me"
        assert re_match("b", "ab") is None

    @pytest.mark.parametrize(
        ("text", "options", "expected"),
        [
            ("1,2,3", {}, [1, 2, 3]),
            (" 1 , -2 ,x,, 3.5, 4", {}, [1, -2, 4]),
            ("--5,+6,²,٣,1_0", {}, []),
            ("", {"minsplit": 2}, [0, 0]),
            ("7", {"minsplit": 3}, [7, 0, 0]),
            ("1|2|3", {"sep": "|", "maxsplit": 1}, [1]),
            ("1,2,3", {"minsplit": 2}, [1, 2, 3]),
        ],
    )
    def test_split_int(self, text: str, options: dict[str, object], expected: list[int]) -> None:
        """Whole numbers are read, anything else is left out, and zeros fill up."""
        assert split_int(text, **options) == expected  # type: ignore[arg-type]  # of the table above

    @given(st.lists(st.integers()))
    def test_every_list_returns(self, numbers: list[int]) -> None:
        """What was joined by commas comes back."""
        assert split_int(",".join(map(str, numbers))) == numbers


class Awaits:
    """A callable object that returns an awaitable."""

    def __call__(self, value: int) -> Awaitable[int]:
        """Return a future."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.set_result(value)
        return future


async def double(value: int) -> int:
    """Double, later."""
    await asyncio.sleep(0)
    return 2 * value


class TestAsyncio:
    """`package_task`, `wait_frame`, `loop_time`, `install_uvloop`."""

    @pytest.mark.parametrize(
        ("function", "result"),
        [(double, 6), (abs, 3), (functools.partial(double), 6), (Awaits(), 3), (lambda value: value, 3)],
    )
    async def test_package_task(self, function: Callable[[int], object], result: int) -> None:
        """Every kind of callable becomes a coroutine function that can be called again and again."""
        task = package_task(function, 3)

        assert asyncio.iscoroutinefunction(task)
        assert [await task(), await task()] == [result, result]

    async def test_package_task_calls_late(self) -> None:
        """The function is called when the coroutine runs; its error is raised there, each time."""
        calls: list[dict[str, int]] = []

        def fail(**options: int) -> None:
            calls.append(options)
            raise ValueError(len(calls))

        task = package_task(fail, a=1)
        assert calls == []

        for number in ("1", "2"):
            with pytest.raises(ValueError, match=number):
                await task()

        assert calls == [{"a": 1}, {"a": 1}]

    async def test_wait_frame(self) -> None:
        """The loop turns exactly so many times."""
        turns = 0
        loop = asyncio.get_running_loop()

        def turn() -> None:
            nonlocal turns
            turns += 1
            loop.call_soon(turn)

        loop.call_soon(turn)
        await wait_frame(0)
        assert turns == 0
        await wait_frame(7)
        assert turns == 7
        await wait_frame()
        assert turns == 17

    async def test_loop_time(self) -> None:
        """It is the running loop's clock."""
        loop = asyncio.get_running_loop()
        before = loop.time()

        assert before <= loop_time() <= loop.time()

    def test_loop_time_without_loop(self) -> None:
        """Without a loop the error says what to do."""
        with pytest.raises(UsageError, match="call it from a coroutine"):
            loop_time()

    async def test_install_uvloop_too_late(self) -> None:
        """With a loop running, it has no effect and says so."""
        with pytest.raises(UsageError, match="call it before"):
            install_uvloop()

    def test_install_uvloop(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With uvloop at hand, its policy is the one that is used."""
        policy = object()
        installed: list[object] = []
        fake = type("uvloop", (), {"EventLoopPolicy": lambda: policy})
        monkeypatch.setattr(importlib, "import_module", lambda name: {"uvloop": fake}[name])
        monkeypatch.setattr(asyncio, "set_event_loop_policy", installed.append)

        assert install_uvloop() is True
        assert installed == [policy]

    def test_install_uvloop_without_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without uvloop nothing changes."""
        monkeypatch.setitem(sys.modules, "uvloop", None)

        assert install_uvloop() is False
