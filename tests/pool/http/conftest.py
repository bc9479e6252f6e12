"""A web server, a pool for it, and the pool's client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.pool.http._server import Site, serve
from ws_pool.http import HttpClient, HttpPool


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """A web server."""
    async with serve() as site:
        yield site


@pytest.fixture
async def pool(site: Site) -> AsyncIterator[HttpPool]:
    """A pool for the web server, which waits for nothing between attempts."""
    async with HttpPool(base_url=site.url, retry_wait=0, headers={"x-app": "shop"}) as pool:
        yield pool


@pytest.fixture
async def http(pool: HttpPool) -> AsyncIterator[HttpClient]:
    """The pool's client."""
    async with pool.get_client() as http:
        yield http
