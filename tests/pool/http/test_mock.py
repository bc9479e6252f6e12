"""A test that answers a pool's requests itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from tests.pool.http._server import Site
from ws_pool.errors import HttpConnectionError, HttpStatusError, HttpTimeout, UsageError
from ws_pool.http import HttpPool, HttpPoolManager


class TestMock:
    async def test_a_mapping(self) -> None:
        """Answers are found by method and path, with or without a host; the requests are kept."""
        answers = {
            "GET /accounts/7": {"id": 7},
            "GET other.example/accounts/7": [1, 2],
            "POST /transfers": 201,
            "GET /text": "żółć",
            "GET /bytes": b"\0",
            "GET /made": lambda _: web.Response(text="made", headers={"etag": "x"}),
        }

        async with HttpPool("https://bank.example", headers={"x-app": "shop"}) as pool:
            async with pool.mock(answers) as mock:
                http = pool.client
                assert (await http.get("/accounts/7", params={"a": "b c"})).json() == {"id": 7}
                assert (await http.get("https://other.example/accounts/7")).json() == [1, 2]
                assert (await http.post("/transfers", json={"cents": 5})).status_code == 201
                assert (await http.get("/text")).text == "żółć"
                assert (await http.get("/bytes")).content == b"\0"

                for _ in range(2):
                    assert (await http.get("/made")).headers["etag"] == "x"

            first, _, post, *_ = mock.calls
            assert (first.method, str(first.url)) == ("GET", "http://bank.example/accounts/7?a=b+c")
            assert first.headers["x-app"] == "shop"
            assert (post.body, post.json()) == (b'{"cents": 5}', {"cents": 5})
            assert repr(mock) == "<HttpMock of pool 'default': 7 calls>"

    async def test_faults(self) -> None:
        """A function can be slow, hang up or fail first; the pool's retries and timeouts are real."""
        left = [503, 503]

        async def answer(request: web.BaseRequest) -> web.StreamResponse | int | str:
            if request.path == "/slow":
                await asyncio.sleep(60)

            if request.path == "/lost":
                assert request.transport is not None
                request.transport.close()

            return left.pop() if left else "ok"

        async with HttpPool("http://shop", retry_wait=0) as pool, pool.mock(answer) as mock:
            assert (await pool.client.get("/")).text == "ok"
            assert (len(mock.calls), pool.statistics().retries) == (3, 2)

            with pytest.raises(HttpTimeout):
                await pool.client.get("/slow", timeout=0.05, retries=0)

            with pytest.raises(HttpConnectionError):
                await pool.client.get("/lost", retries=0)

            left.append(404)

            with pytest.raises(HttpStatusError):
                await pool.client.get("/")

    async def test_its_errors_are_the_tests(self) -> None:
        """A failed assertion, a request without an answer and a wrong answer come out of the call at once."""

        def check(request: web.BaseRequest) -> int:
            assert request.query == {"page": "2"}, "page"
            return 200

        answers: dict[str, Any] = {"GET /": check, "GET /odd": 1.5, "GET /once": web.Response()}

        async with HttpPool("http://shop", retry_wait=0) as pool, pool.mock(answers) as mock:
            with pytest.raises(AssertionError, match="page"):
                await pool.client.get("/?page=1")

            with pytest.raises(UsageError, match="no answer for GET shop/none: it has GET /, GET /odd"):
                await pool.client.get("/none")

            with pytest.raises(UsageError, match=r"has 1\.5 for GET /odd: give a status"):
                await pool.client.get("/odd")

            with pytest.raises(UsageError, match="only once: give a function"):
                await pool.client.get("/once")

            assert (await pool.client.get("/?page=2")).ok
            assert len(mock.calls) == 5

        async with HttpPool("http://shop") as pool, pool.mock({}):
            with pytest.raises(UsageError, match="it has none"):
                await pool.client.get("/")

    async def test_all_of_http(self, tmp_path: Any) -> None:
        """Redirects, streams, downloads, WebSockets and clients with cookies work as with a server."""

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            if request.path == "/from":
                raise web.HTTPFound("https://elsewhere.example/to")

            if request.path == "/socket":
                socket = web.WebSocketResponse()
                await socket.prepare(request)
                await socket.send_str(await socket.receive_str())
                await socket.close()
                return socket

            response = web.Response(body=b"x" * 300_000, headers={"x-cookie": str(dict(request.cookies))})
            response.set_cookie("seen", "yes")
            return response

        async with HttpPool("https://shop.example") as pool, pool.mock(answer) as mock:
            assert (await pool.client.get("/from")).url == "https://elsewhere.example/to"
            assert (await pool.client.download("/file", tmp_path / "f")).stat().st_size == 300_000

            async with pool.client.request_stream("GET", "/") as stream:
                assert len(await stream.read()) == 300_000

            async with pool.client.websocket("/socket") as socket:
                await socket.send_str("hello")
                assert await socket.receive_str() == "hello"

            async with pool.get_client(alone=True) as alone:
                await alone.get("/")
                assert "seen" in (await alone.get("/")).headers["x-cookie"]

            assert len(mock.calls) == 7

    async def test_before_and_after(self, site: Site) -> None:
        """Connections to the network are not used within the block, nor those of the mock after it."""
        manager = HttpPoolManager()
        manager.register({"default": {"base_url": site.url}})

        async with manager:
            pool = manager.get_pool()
            client = pool.client
            assert (await client.get("/echo")).json()["path"] == "/echo"

            async with pool.mock({"GET /echo": "mocked"}):
                assert (await client.get("/echo")).text == "mocked"

                with pytest.raises(UsageError, match="mocked already"):
                    async with pool.mock({}):
                        pass

            assert (await client.get("/echo")).json()["path"] == "/echo"
            task = asyncio.create_task(client.get("/slow"))
            await site.reached.wait()

            with pytest.raises(UsageError, match="is in use"):
                async with pool.mock({}):
                    pass

            site.gate.set()
            assert (await task).text == "late"

        assert len(site.hits) == 3

    async def test_a_request_that_outlives_the_block(self) -> None:
        """It fails; it does not reach the network."""
        reached = asyncio.Event()

        async def answer(_: web.BaseRequest) -> int:
            reached.set()
            await asyncio.sleep(60)
            return 200

        async with HttpPool("http://shop", retries=0) as pool:
            async with pool.mock(answer):
                task = asyncio.create_task(pool.client.get("/"))
                await reached.wait()

            with pytest.raises(HttpConnectionError):
                await task
