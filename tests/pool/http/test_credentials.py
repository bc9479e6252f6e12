"""Secret headers stay with the origin that they are meant for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.pool.http._server import Site, serve
from ws_pool.errors import UsageError
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


@pytest.mark.parametrize("bound", [True, False])
async def test_a_websocket_that_is_redirected_to_another_origin(
    site: Site, other: Site, *, bound: bool
) -> None:
    """Neither the pool's secrets nor those of the call go along."""
    seen: list[dict[str, str]] = []

    async def elsewhere(request: web.Request) -> web.Response:
        assert request.headers["x-api-key"] == "k1"
        return web.Response(status=302, headers={"location": f"{other.url}/handled"})

    async def accept(request: web.Request) -> web.WebSocketResponse:
        seen.append({name.lower(): value for name, value in request.headers.items()})
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        return socket

    site.handle, other.handle = elsewhere, accept
    url = site.url.replace("http", "ws")  # the same origin as that of its pages

    async with (
        HttpPool(site.url if bound else None, headers={"x-api-key": "k1"}) as pool,
        pool.client.websocket(f"{url}/handled", headers={"x-auth-token": "t", "x-other": "o"}),
    ):
        pass

    assert seen[0].keys() & {"x-api-key", "x-auth-token", "x-other"} == {"x-other"}


@pytest.mark.parametrize(
    "options", [{"headers": {"a": None}}, {"headers": 5}, {"protocols": "chat"}, {"heartbeat": 0}]
)
async def test_wrong_arguments_of_a_websocket(site: Site, options: dict[str, Any]) -> None:
    """They are refused by name, and not by an error of some other place."""
    async with HttpPool(site.url) as pool:
        with pytest.raises(UsageError, match=r"must be|must map"):
            async with pool.client.websocket("/socket", **options):
                pass


async def test_cookies_of_a_server_that_has_only_an_address(site: Site) -> None:
    """The option keeps the cookies of every server, also of one without a name."""
    async with HttpPool(site.url, cookies=True) as pool:
        await pool.client.get("/echo")
        assert (await pool.client.get("/echo")).json()["cookies"] == {"seen": "yes"}
