"""A server that closes silent connections keeps those that are pinged."""

from __future__ import annotations

import asyncio

import pytest

from ws_pool import MysqlPool


@pytest.mark.parametrize("driver", ["aiomysql", "asyncmy"])
@pytest.mark.parametrize(("keepalive", "opened"), [(1.0, 1), (None, 2)])
async def test_wait_timeout(mysql_url: str, driver: str, keepalive: float | None, opened: int):
    """With keepalive the connection outlives MySQL's wait_timeout; without it another one is opened."""
    async with MysqlPool(
        mysql_url, driver=driver, max_size=1, keepalive=keepalive, init_command="SET wait_timeout = 3"
    ) as pool:
        await pool.find("SELECT 1")
        await asyncio.sleep(6)
        assert await pool.find("SELECT CONNECTION_ID()")
        assert pool.statistics().opened == opened
