"""A connection is used again only as the last answer left it; a request is repeated only by `retries`."""

from __future__ import annotations

import asyncio

import pytest

from tests.pool.http._server import serve_raw
from ws_pool.errors import HttpConnectionError
from ws_pool.http import HttpPool

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Closing:
    """A raw server that answers the first request of a connection and hangs up at the second."""

    def __init__(self, *, opens: int = 100) -> None:
        self.requests: list[str] = []
        self._opens = opens

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer once, then read a request and hang up."""
        self._opens -= 1

        for _ in range(2):
            line = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode()
            self.requests.append(line.removesuffix(" HTTP/1.1"))

            if self._opens >= 0:
                writer.write(OK + b"ok")
                self._opens = -1
            elif self._opens == -1:
                self._opens = -2
                return
            else:
                writer.write(OK + b"ok")


class TestRepeats:
    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
    async def test_retries_0_reaches_a_server_once(self, method: str) -> None:
        """A kept connection that is closed at the request is an error, not a hidden second request."""
        server = Closing(opens=1)

        async with serve_raw(server.handle) as url, HttpPool(base_url=url, retries=0) as pool:
            await pool.client.get("/first")

            with pytest.raises(HttpConnectionError):
                await pool.client.request(method, "/second")

            assert server.requests == ["GET /first", f"{method} /second"]
            assert pool.statistics().retries == 0

    async def test_a_retry_is_counted_and_does_not_wait(self) -> None:
        """With retries it is made again at once, and counted."""
        server = Closing(opens=1)

        async with (
            serve_raw(server.handle) as url,
            HttpPool(base_url=url, retries=1, retry_wait=60, retry_max_wait=60) as pool,
        ):
            await pool.client.get("/first")
            assert (await asyncio.wait_for(pool.client.get("/second"), 10)).ok
            assert server.requests == ["GET /first", "GET /second", "GET /second"]
            assert pool.statistics().retries == 1

    async def test_a_post_is_never_made_twice(self) -> None:
        """It may have had its effect."""
        server = Closing(opens=1)

        async with serve_raw(server.handle) as url, HttpPool(base_url=url, retries=5) as pool:
            await pool.client.get("/first")

            with pytest.raises(HttpConnectionError):
                await pool.client.post("/second")

            assert server.requests == ["GET /first", "POST /second"]

    @pytest.mark.parametrize("retries", [0, 1, 3])
    async def test_a_server_that_always_hangs_up(self, retries: int) -> None:
        """It is reached retries + 1 times, never more."""
        requests = 0

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal requests
            await reader.readuntil(b"\r\n\r\n")
            requests += 1

        async with serve_raw(handle) as url, HttpPool(base_url=url, retries=retries, retry_wait=0) as pool:
            with pytest.raises(HttpConnectionError):
                await pool.client.get("/")

        assert requests == retries + 1


class TestUnaskedAnswers:
    @pytest.mark.parametrize("unasked", [OK + b"no", b"garbage", b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
    async def test_they_answer_no_request(self, unasked: bytes) -> None:
        """What a server sends on an idle connection is dropped with the connection."""
        sent, connections = asyncio.Event(), 0

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
            writer.write(OK + path[1:].encode())
            await asyncio.sleep(0.05)

            if connections == 1:
                writer.write(unasked)
                sent.set()

            await reader.read()

        async with serve_raw(handle) as url, HttpPool(base_url=url, retries=0) as pool:
            assert (await pool.client.get("/ab")).text == "ab"
            await sent.wait()
            await asyncio.sleep(0.05)
            assert (await pool.client.get("/cd")).text == "cd"
            assert connections == 2

    async def test_a_server_that_speaks_first_ends_in_an_error(self) -> None:
        """A server that sends at once on every connection does not keep the pool busy for ever."""

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example ESMTP\r\n")
            await reader.read()

        async with serve_raw(handle) as url, HttpPool(base_url=url, retries=0, timeout=5) as pool:
            with pytest.raises(Exception, match="GET http"):
                await pool.client.get("/")
