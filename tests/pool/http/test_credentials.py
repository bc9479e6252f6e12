"""Secret headers stay with the origin that they are meant for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import pytest
from aiohttp import web

from tests.pool.http._server import Site, serve
from ws_pool.http import HttpPool

SECRET = {"X-API-Key": "k1", "authorization": "Bearer t", "x-request-id": "r"}


@pytest.fixture
async def other() -> AsyncIterator[Site]:
    """A second web server: another origin."""
    async with serve() as site:
        yield site


async def headers_at(pool: HttpPool, url: str, **options: object) -> dict[str, str]:
    """Return the headers that arrive."""
    response = await pool.client.get(url, **options)  # type: ignore[arg-type]
    headers: dict[str, str] = response.json()["headers"]
    return headers


async def test_the_pools_headers_go_to_its_base_url_only(site: Site, other: Site) -> None:
    """Another origin gets the plain headers, and none of the secrets."""
    async with HttpPool(base_url=site.url, headers=SECRET) as pool:
        here = await headers_at(pool, "/echo")
        there = await headers_at(pool, f"{other.url}/echo")

    assert (here["x-api-key"], here["authorization"], here["x-request-id"]) == ("k1", "Bearer t", "r")
    assert "x-api-key" not in there
    assert "authorization" not in there
    assert there["x-request-id"] == "r"


@pytest.mark.parametrize("base", [True, False])
async def test_a_redirect_to_another_origin_takes_no_secrets_along(
    site: Site, other: Site, *, base: bool
) -> None:
    """Neither those of the pool nor those of the request reach it; at home they all do."""
    site.script = [lambda: web.Response(status=302, headers={"location": f"{other.url}/echo"})]

    async with HttpPool(base_url=site.url if base else None, headers={"x-api-key": "k1"}) as pool:
        there = await headers_at(pool, f"{site.url}/scripted", headers={"x-auth-token": "t"}, auth=("u", "p"))
        assert not {"x-api-key", "x-auth-token", "authorization"} & there.keys()
        site.script = [lambda: web.Response(status=302, headers={"location": "/echo"})]
        here = await headers_at(pool, f"{site.url}/scripted", headers={"x-auth-token": "t"}, auth=("u", "p"))
        assert {"x-api-key", "x-auth-token", "authorization"} <= here.keys()


async def test_a_requests_own_header_is_meant_for_its_url(site: Site, other: Site) -> None:
    """A secret of a request itself goes where that request goes, whatever the pool has."""
    async with HttpPool(base_url=site.url, headers={"X-Api-Key": "of the pool"}) as pool:
        there = await headers_at(pool, f"{other.url}/echo", headers={"x-api-key": "of the request"})

    assert there["x-api-key"] == "of the request"


async def test_a_websocket_to_another_origin(site: Site) -> None:
    """The pool's secrets are kept from WebSockets of other hosts, too."""
    seen: list[str | None] = []

    async def accept(request: web.Request) -> web.WebSocketResponse:
        seen.append(request.headers.get("x-api-key"))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        return socket

    app = web.Application()
    app.router.add_get("/ws", accept)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = "ws://{}:{}/ws".format(*runner.addresses[0])

    async with AsyncExitStack() as stack:
        stack.push_async_callback(runner.cleanup)
        pool = await stack.enter_async_context(HttpPool(base_url=site.url, headers={"x-api-key": "k1"}))

        async with pool.client.websocket(url) as socket:
            assert isinstance(socket, aiohttp.ClientWebSocketResponse)

    assert seen == [None]
