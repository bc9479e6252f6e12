"""What comes piece by piece: streams and WebSockets."""

from __future__ import annotations

import pytest

from tests.pool.http._server import BIG
from ws_pool.errors import HttpConnectionError, HttpStatusError
from ws_pool.http import HttpClient, HttpPool


class TestStreams:
    async def test_chunks(self, http: HttpClient, pool: HttpPool) -> None:
        """A body comes in pieces, and the connection is back afterwards."""
        async with http.request_stream("GET", "/big") as stream:
            assert stream.status_code == 200
            assert stream.headers["etag"] == '"v1"'
            assert b"".join([chunk async for chunk in stream.chunks(1000)]) == BIG

        async with http.request_stream("GET", "/big") as stream:
            assert await stream.read() == BIG

        assert pool.statistics().connections == 0

    async def test_leaving_early(self, http: HttpClient, pool: HttpPool) -> None:
        """Leaving the block before the end closes the connection."""
        async with http.request_stream("GET", "/big") as stream:
            async for _ in stream.chunks():
                break

        assert pool.statistics().connections == 0
        assert pool.statistics().active == 0

    async def test_a_bad_status(self, http: HttpClient) -> None:
        """The status is an error as for other requests, unless raise_for_status is off."""
        with pytest.raises(HttpStatusError) as caught:
            async with http.request_stream("GET", "/status/404"):
                pytest.fail("not reached")

        assert caught.value.response.text == "as requested"  # type: ignore[attr-defined]

        async with http.request_stream("GET", "/status/404", raise_for_status=False) as stream:
            assert stream.status_code == 404

    async def test_a_cut(self, http: HttpClient, pool: HttpPool) -> None:
        """A body that is cut is an error for those who read pieces, too."""
        async with http.request_stream("GET", "/big?cut=1") as stream:
            with pytest.raises(HttpConnectionError):
                assert [chunk async for chunk in stream.chunks()] == []

        async with http.request_stream("GET", "/big?cut=1") as stream:
            with pytest.raises(HttpConnectionError):
                await stream.read()

        with pytest.raises(HttpConnectionError):
            await http.get("/big?cut=1", retries=0)

        assert pool.statistics().failures == 1


class TestWebSocket:
    async def test_messages(self, http: HttpClient) -> None:
        """A socket sends and receives, with the headers given."""
        async with http.websocket("/socket", headers={"x-who": "me"}, protocols=("shop",)) as socket:
            assert socket.protocol == "shop"
            await socket.send_str("hello")
            assert (await socket.receive()).data == "me: hello"

        assert socket.closed

    async def test_refusals(self, http: HttpClient, unused_tcp_port: int) -> None:
        """A server without a socket, or none at all, is an error of ours."""
        with pytest.raises(HttpStatusError) as caught:
            async with http.websocket("/echo"):
                pytest.fail("not reached")

        assert caught.value.status_code == 200

        with pytest.raises(HttpConnectionError):
            async with http.websocket(f"ws://127.0.0.1:{unused_tcp_port}/"):
                pytest.fail("not reached")
