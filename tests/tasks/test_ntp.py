"""NTP clients against a small server of ours."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

pytest.importorskip("ntplib", reason="an extra: ws-tasks[ntp]")

from ws_core.errors import NotReadyError
from ws_tasks import ScheduleError
from ws_tasks.ntp import IntervalNTPClient, IntervalNTPClientManager

_EPOCH = 2_208_988_800  # seconds from NTP's epoch, 1900, to that of Unix


class NTPServer(asyncio.DatagramProtocol):
    """A server whose clock is wrong by so many seconds."""

    def __init__(self, ahead: float) -> None:
        self.ahead = ahead
        self.leap, self.stratum = 0, 2
        self.asked = 0
        self.silent = False
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer."""
        self.asked += 1

        if self.silent or self.transport is None:
            return

        now = _stamp(time.time() + self.ahead)
        head = struct.pack("!BBbb", self.leap << 6 | 4 << 3 | 4, self.stratum, 6, -20)
        self.transport.sendto(head + bytes(12) + now + data[40:48] + now + now, addr)


def _stamp(seconds: float) -> bytes:
    moment = seconds + _EPOCH
    return struct.pack("!II", int(moment), int(moment % 1 * 2**32))


@asynccontextmanager
async def server(ahead: float = 0.0) -> AsyncIterator[tuple[NTPServer, str]]:
    """Run a server; yield it and its address."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: NTPServer(ahead), local_addr=("127.0.0.1", 0)
    )

    try:
        yield protocol, f"127.0.0.1:{transport.get_extra_info('sockname')[1]}"
    finally:
        transport.close()


async def until(condition: object) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(20):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


class TestClient:
    async def test_offset(self) -> None:
        """The server's time is this machine's with the offset, asked for again and again."""
        async with server(ahead=100) as (found, address), IntervalNTPClient(0.05, address) as client:
            await until(lambda: found.asked >= 3 and client.ready)
            assert abs(client.offset - 100) < 1
            assert abs(client.timestamp - time.time() - 100) < 1
            found.ahead = -50
            await until(lambda: client.ready and client.offset < 0)
            assert repr(client).endswith("every 0.05 s>")

        asked = found.asked
        await asyncio.sleep(0.2)
        assert found.asked == asked

    async def test_servers_that_do_not_know(self, caplog: pytest.LogCaptureFixture) -> None:
        """A refusal, a server that is not synchronised, and silence give no time, and are logged."""
        async with server() as (found, address):
            client = IntervalNTPClient(60, address, timeout=0.1)

            with pytest.raises(NotReadyError, match="not been asked"):
                _ = client.offset

            for found.leap, found.stratum, found.silent in (
                (3, 2, False),
                (0, 0, False),
                (0, 16, False),
                (0, 2, True),
            ):
                await client.update()
                assert not client.ready

            with pytest.raises(NotReadyError, match="NTPException"):
                _ = client.timestamp

            client._pool.close()

        assert "it does not know the time itself: leap indicator 3, stratum 2" in caplog.text

    async def test_an_old_offset(self) -> None:
        """A server that falls silent is believed for ten intervals."""
        async with server() as (found, address), IntervalNTPClient(0.05, address, timeout=0.05) as client:
            await until(lambda: client.ready)
            found.silent = True
            await until(lambda: not client.ready)

            with pytest.raises(NotReadyError):
                _ = client.offset

    def test_bad_input(self) -> None:
        """Wrong intervals and hosts are refused."""
        with pytest.raises(ScheduleError, match="interval"):
            IntervalNTPClient(0, "a")

        for host in ("", "a:0", "a:b", ":123"):
            with pytest.raises(ScheduleError, match="host="):
                IntervalNTPClient(60, host)

        assert IntervalNTPClient(60, "::1")._address == "::1"


class TestManager:
    async def test_median(self) -> None:
        """One server that is wrong, or silent, changes nothing."""
        async with (
            server(10) as (_, a),
            server(10) as (_, b),
            server(9000) as (_, c),
            server() as (other, d),
        ):
            other.silent = True

            async with IntervalNTPClientManager(0.2, [a, b, c, d], timeout=0.1) as clock:
                await until(lambda: sum(client.ready for client in clock.clients) == 3)
                assert clock.ready
                assert abs(clock.offset - 10) < 1
                assert abs(clock.timestamp - time.time() - 10) < 1

    async def test_nobody_answers(self) -> None:
        """Without an answer there is no time."""
        clock = IntervalNTPClientManager(60, ["127.0.0.1:9"])
        assert not clock.ready

        with pytest.raises(NotReadyError):
            _ = clock.timestamp

        with pytest.raises(ScheduleError, match="hosts"):
            IntervalNTPClientManager(60, [])
