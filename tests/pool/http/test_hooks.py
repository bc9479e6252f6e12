"""Functions of the application that see requests and answers."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from aiohttp import ClientRequest, ClientResponse, web

from tests.pool.http._server import Site, serve_bytes
from ws_pool.http import HttpPool


class TestHooks:
    async def test_each_attempt_and_redirect(self, site: Site) -> None:
        """Hooks see what is sent and what comes, redirects and retries included, and may change headers."""
        seen: list[str] = []

        async def sign(request: ClientRequest) -> None:
            request.headers["x-signature"] = f"{request.method} {request.url.path}"

        def note(response: ClientResponse) -> None:
            seen.append(f"{response.status} {response.url.path}")

        site.script = [
            lambda: web.Response(status=503),
            lambda: web.Response(status=302, headers={"location": "/echo/end"}),
        ]

        async with HttpPool(base_url=site.url, retry_wait=0, on_request=sign, on_response=note) as pool:
            response = await pool.client.get("/scripted")

        assert response.json()["headers"]["x-signature"] == "GET /echo/end"
        assert seen == ["503 /scripted", "302 /scripted", "200 /echo/end"]

    @pytest.mark.parametrize("packed", [False, True])
    async def test_a_hook_may_read_the_body(self, *, packed: bool) -> None:
        """The body is there all the same, for requests and for streams, compressed or not."""
        body = gzip.compress(b"text" * 9) if packed else b"text" * 9
        head = f"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {len(body)}\r\n"
        answer = (head + ("content-encoding: gzip\r\n" if packed else "") + "\r\n").encode() + body
        seen: list[bytes] = []

        async def read(response: ClientResponse) -> None:
            seen.append(await response.read())

        async with (
            serve_bytes(answer, answer, answer) as (url, _),
            HttpPool(base_url=url, on_response=read, retries=0) as pool,
        ):
            response = await pool.client.get("/")
            assert response.content == b"text" * 9
            assert await response.raw.read() == body

            async with pool.client.request_stream("GET", "/") as stream:
                assert [chunk async for chunk in stream.chunks(10)] != []

            async with pool.client.request_stream("GET", "/") as stream:
                assert await stream.read() == b"text" * 9

        assert seen == [body] * 3

    @pytest.mark.parametrize("error", [KeyError("k"), TimeoutError("t"), ConnectionResetError("r")])
    @pytest.mark.parametrize("hook", ["on_request", "on_response"])
    async def test_its_error_is_the_callers(self, site: Site, hook: str, error: Exception) -> None:
        """What a hook raises comes out as it is, is not retried, and leaves no connection in use."""

        def fail(_: object) -> None:
            raise error

        options: dict[str, Any] = {hook: fail}

        async with HttpPool(site.url, retry_wait=0, breaker_failures=1, **options) as pool:
            for _ in range(2):
                with pytest.raises(type(error)) as caught:
                    await pool.client.get("/echo")

                assert caught.value is error

            assert pool.statistics().connections == 0
            assert pool.statistics().retries == 0

        assert len(site.hits) == (2 if hook == "on_response" else 0)

    async def test_with_credentials(self, site: Site) -> None:
        """Hooks run beside the guard that keeps secret headers from other origins."""
        other = site.url.replace("127.0.0.1", "localhost")

        def sign(request: ClientRequest) -> None:
            request.headers["x-signature"] = request.url.host or ""

        site.script = [lambda: web.Response(status=302, headers={"location": f"{other}/echo"})]

        async with HttpPool(base_url=site.url, on_request=sign, headers={"x-api-key": "s3cret"}) as pool:
            told = (await pool.client.get("/scripted", headers={"x-token": "s3cret"})).text

        assert "localhost" in told
        assert "s3cret" not in told
