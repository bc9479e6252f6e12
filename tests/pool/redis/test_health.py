"""Health of a pool."""

from __future__ import annotations

import pytest

from tests.servers import StartServer
from tools.servers import RedisServer
from ws_pool.errors import NotReadyError
from ws_pool.redis import RedisPool


async def test_health_never_raises(start_server: StartServer) -> None:
    """Health reports what is wrong, whatever it is."""
    pool = RedisPool(url="redis://127.0.0.1:1")
    assert "not started" in (await pool.health()).detail

    with pytest.raises(NotReadyError):
        async with pool.get_client(alone=True):
            pass

    server = start_server(RedisServer)

    async with RedisPool(url=server.url) as started:
        server.pause()
        assert (await started.health(timeout=0.05)).detail == "no answer within 0.05 s"
        server.resume()
