"""Servers that break the rules of HTTP: an answer is right or an error, in time, and harms no other."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.pool.http._server import serve_raw
from ws_pool.errors import HttpDecodeError, HttpError, HttpTimeout, UsageError
from ws_pool.http import HttpClient, HttpPool

OK = b"HTTP/1.1 200 OK\r\n"
GOOD = OK + b"content-length: 4\r\n\r\ngood"


@asynccontextmanager
async def misbehaving(bad: bytes, *, reset: bool = False, close: bool = True) -> AsyncIterator[HttpClient]:
    """Yield a client of a server that answers the path /bad with given bytes, and others well."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if b" /bad " not in head:
                writer.write(GOOD)
                continue

            writer.write(bad)

            with contextlib.suppress(ConnectionError):
                await writer.drain()

            if reset:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
                return

            if close:
                return

    async with serve_raw(handle) as url, HttpPool(url, retries=0, timeout=20) as pool:
        assert (await pool.client.get("/good")).text == "good"
        yield pool.client
        statistics = pool.statistics()
        assert (statistics.connections, statistics.active) == (0, 0)

        # With a retry, because a server may close a connection after a good answer, too.
        for _ in range(3):
            assert (await pool.client.get("/good", retries=1)).text == "good"


class TestHeads:
    @pytest.mark.parametrize(
        "bad",
        [
            b"\r\n\r\n\r\n",
            b"<html>no head</html>\r\n\r\n",
            b"HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 abc OK\r\n\r\n",
            b"HTTP/1.1 99999 OK\r\n\r\n",
            b"HTTP/x.y 200 OK\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.6\r\n",
            OK + b"no colon\r\n\r\n",
            OK + b"na me: x\r\n\r\n",
            OK + b": nameless\r\n\r\n",
            OK + b"x: " + b"y" * 200_000 + b"\r\n\r\n",
            OK + b"content-length: -4\r\n\r\ngood",
            OK + b"content-length: four\r\n\r\ngood",
            OK + b"content-length: +4\r\n\r\ngood",
            OK + b"content-length: 4\r\ncontent-length: 3\r\n\r\ngood",
            OK + b"content-length: 4, 3\r\n\r\ngood",
            OK + b"content-length: 4\r\ncontent-length: 4\r\n\r\ngood",
            OK + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n",
            OK[:9],
            OK + b"content-length: 4\r\n",
        ],
    )
    async def test_broken(self, bad: bytes) -> None:
        """A head that is not HTTP, contradicts itself or is cut is an error of ours."""
        async with misbehaving(bad) as http:
            with pytest.raises(HttpError):
                await http.get("/bad")

    async def test_endless(self) -> None:
        """A server that sends headers for ever is ended by the parser's bound, not by the memory's."""
        async with misbehaving(OK + b"x: y\r\n" * 200_000) as http:
            with pytest.raises(HttpError):
                await http.get("/bad")

    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            (b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + GOOD, "good"),
            (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + GOOD, "good"),
            (b"HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\n", ""),
            (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 4\r\n\r\n", ""),
            (b"HTTP/1.0 200 OK\r\n\r\ngood", "good"),
            (OK + b"set-cookie: \x01=;;;\r\nset-cookie: a\r\ncontent-length: 4\r\n\r\ngood", "good"),
        ],
    )
    async def test_odd(self, answer: bytes, text: str) -> None:
        """What is odd but has one meaning is understood."""
        async with misbehaving(answer) as http:
            assert (await http.get("/bad")).text == text

    async def test_head(self) -> None:
        """The answer to HEAD has no body, whatever its length says."""
        async with misbehaving(OK + b"content-length: 1000\r\n\r\n", close=False) as http:
            response = await http.head("/bad")
            assert (response.content, response.headers["content-length"]) == (b"", "1000")


class TestBodies:
    @pytest.mark.parametrize(
        "bad",
        [
            OK + b"content-length: 5\r\n\r\ngood",
            OK + b"transfer-encoding: chunked\r\n\r\n4\r\ngood\r\n",
            OK + b"transfer-encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n",
            OK + b"transfer-encoding: chunked\r\n\r\n6\r\ngood\r\n0\r\n\r\n",
            OK + b"transfer-encoding: chunked\r\n\r\nzz\r\ngood\r\n0\r\n\r\n",
            OK + b"transfer-encoding: chunked\r\n\r\n-4\r\ngood\r\n0\r\n\r\n",
            OK + b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\ngood\r\n0\r\n\r\n",
        ],
    )
    @pytest.mark.parametrize("reset", [False, True])
    async def test_lies_about_the_length(self, bad: bytes, *, reset: bool) -> None:
        """A body that ends before its length or its last chunk is an error, for streams too."""
        async with misbehaving(bad, reset=reset) as http:
            with pytest.raises(HttpError):
                await http.get("/bad")

            with pytest.raises(HttpError):
                async with http.request_stream("GET", "/bad") as stream:
                    await stream.read()

    @pytest.mark.parametrize(
        "bad",
        [
            OK + b"content-length: 4\r\n\r\ngood" + GOOD.replace(b"good", b"evil"),
            OK + b"content-length: 4\r\n\r\ngoodevil",
            OK + b"transfer-encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n" + GOOD.replace(b"good", b"evil"),
            b"HTTP/1.1 204 No Content\r\n\r\n" + GOOD.replace(b"good", b"evil"),
        ],
    )
    async def test_more_than_the_length(self, bad: bytes) -> None:
        """What follows a body is part of no answer: neither of its own nor of the next request's."""
        async with misbehaving(bad, close=False) as http:
            for _ in range(5):
                with contextlib.suppress(HttpError):
                    assert (await http.get("/bad")).text in {"good", ""}

                assert (await http.get("/good", retries=1)).text == "good"

    @pytest.mark.parametrize("encoding", [b"br", b"zstd", b"gzip, gzip", b"x", b"gzip", b"deflate"])
    async def test_encodings(self, encoding: bytes) -> None:
        """A body in an encoding that was not asked for, or in none at all, is an error."""
        bad = OK + b"content-encoding: " + encoding + b"\r\ncontent-length: 4\r\n\r\ngood"

        async with misbehaving(bad) as http:
            with pytest.raises(HttpDecodeError):
                await http.get("/bad")


class TestTime:
    @pytest.mark.parametrize("beginning", [OK[:13], OK + b"x: ", OK + b"content-length: 1000000\r\n\r\n"])
    async def test_a_drip(self, beginning: bytes) -> None:
        """A server that sends a byte now and then, in the head or in the body, does not hold a request."""

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(beginning)

            while not writer.transport.is_closing():
                writer.write(b"x")
                await asyncio.sleep(0.01)

        async with serve_raw(handle) as url, HttpPool(url, retries=0, timeout=0.3) as pool:
            with pytest.raises(HttpTimeout):
                await pool.client.get("/")

            assert pool.statistics().connections == 0

    async def test_silence(self) -> None:
        """A server that accepts and says nothing is a timeout; with retries it is made again."""
        connections = 0

        async def handle(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await reader.read()

        async with serve_raw(handle) as url, HttpPool(url, retries=2, retry_wait=0, timeout=0.5) as pool:
            with pytest.raises(HttpTimeout):
                await pool.client.get("/")

            assert pool.statistics().retries == 2

            with pytest.raises(HttpTimeout):
                await pool.client.post("/")

        assert connections == 4


class TestRedirects:
    @pytest.mark.parametrize(
        "location",
        [
            b"file:///etc/passwd",
            b"ftp://127.0.0.1/",
            b"javascript:alert(1)",
            b"http://[",
            b"http://",
            b"http://a:99999999/",
            b"gopher://127.0.0.1:6379/_FLUSHALL",
        ],
    )
    async def test_elsewhere(self, location: bytes) -> None:
        """A redirect to what is not a web server's URL is an error."""
        bad = b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\nlocation: " + location + b"\r\n\r\n"

        async with misbehaving(bad) as http:
            with pytest.raises(HttpError, match="redirect"):
                await http.get("/bad")

    async def test_nowhere(self) -> None:
        """A redirect without a location is the answer itself."""
        async with misbehaving(b"HTTP/1.1 302 Found\r\ncontent-length: 4\r\n\r\ngood") as http:
            response = await http.get("/bad")
            assert (response.status_code, response.text) == (302, "good")

    @pytest.mark.parametrize(("status", "method"), [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST")])
    async def test_what_is_sent_again(self, status: int, method: str) -> None:
        """303 makes a POST a GET without its body, and so do 301 and 302; 307 sends both again."""
        heads: list[tuple[bytes, bytes]] = []

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = await reader.readexactly(4) if b"content-length: 4" in head.lower() else b""
                heads.append((head.split(b" ")[0], body))
                moved = f"HTTP/1.1 {status} x\r\nlocation: /good\r\ncontent-length: 0\r\n\r\n".encode()
                writer.write(GOOD if b" /good " in head else moved)

        async with serve_raw(handle) as url, HttpPool(url, retries=0) as pool:
            assert (await pool.client.post("/bad", data=b"body")).text == "good"

        assert heads == [(b"POST", b"body"), (method.encode(), b"body" if method == "POST" else b"")]


class TestUrls:
    @pytest.mark.parametrize("path", ["/a\r\nx-evil: 1", "/a b", "/ä?ö=ü#f", "/%zz", "/a\0b", "/a\u2028b"])
    async def test_nothing_is_smuggled(self, path: str) -> None:
        """Whatever stands in a URL is in one request line."""
        heads: list[bytes] = []

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while head := await reader.readuntil(b"\r\n\r\n"):
                heads.append(head)
                writer.write(GOOD)

        async with serve_raw(handle) as url, HttpPool(url, retries=0) as pool:
            with contextlib.suppress(HttpError, UsageError):
                await pool.client.get(path)

            with pytest.raises(UsageError, match="cannot be made"):
                await pool.client.get("/", headers={"x": "a\r\nx-evil: 1"})

        assert all(b"\r\nx-evil" not in head.lower() for head in heads)
        assert all(len(head.split(b"\r\n")[0].split(b" ")) == 3 for head in heads)
