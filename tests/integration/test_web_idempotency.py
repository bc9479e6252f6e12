"""Idempotency keys of ws-web in the Redis and SQL of ws-pool."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends

from ws_pool.mysql import MysqlPool
from ws_pool.postgres import PostgresPool
from ws_pool.redis import RedisPool
from ws_pool.sqlite import SqlitePool
from ws_web import Settings, create_app
from ws_web.idempotency import Claim, IdempotencyStore, RedisStore, SqlStore, idempotent
from ws_web.testing import AppClient


async def check(store: IdempotencyStore) -> None:
    """Let 20 tasks claim one key, save, claim again, and let a claim end."""
    claims = [Claim(f"t{number}", "f") for number in range(20)]
    holders = await asyncio.gather(*(store.claim("k", claim, 60) for claim in claims))
    assert len({holder.token for holder in holders}) == 1
    done = Claim(holders[0].token, "f", "é" * 100_000)
    assert not await store.save("k", Claim("other", "f", "x"), 60)
    assert await store.save("k", done, 60)
    assert await store.claim("k", Claim("late", "f"), 60) == done
    await store.release("k", done)
    assert await store.claim("k", Claim("next", "f"), 0.05) == Claim("next", "f")
    await asyncio.sleep(0.1)
    assert await store.claim("k", Claim("after", "f"), 60) == Claim("after", "f")


class TestStores:
    """Each server."""

    async def test_redis(self, any_redis_url: str) -> None:
        """Redis and Valkey."""
        async with RedisPool(url=any_redis_url) as pool:
            await check(RedisStore(pool.redis))

    async def test_mysql(self, mysql_url: str) -> None:
        """MySQL and MariaDB."""
        async with MysqlPool(url=mysql_url) as pool:
            store = SqlStore(lambda: pool.get_client(alone=True))
            await store.create()
            await check(store)

    async def test_postgres(self, postgres_url: str) -> None:
        """PostgreSQL."""
        async with PostgresPool(url=postgres_url) as pool:
            store = SqlStore(lambda: pool.get_client(alone=True))
            await store.create()
            await check(store)

    async def test_sqlite(self, tmp_path: Path) -> None:
        """A file."""
        async with SqlitePool(url=f"sqlite:///{tmp_path / 'keys.db'}") as pool:
            store = SqlStore(lambda: pool.get_client(alone=True))
            await store.create()
            await check(store)


class TestApplications:
    """The store of the settings, without naming one."""

    @pytest.mark.parametrize("section", ["REDIS_CONFIG", "DATABASES"])
    async def test_ten_at_once(self, section: str, any_redis_url: str, mysql_url: str) -> None:
        """The order is made once, and all ten get its number."""
        url = any_redis_url if section == "REDIS_CONFIG" else mysql_url
        app = create_app(Settings(**{section: {"default": {"url": url}}}))
        orders: list[int] = []

        @app.post("/orders", dependencies=[Depends(idempotent(wait=30))])
        async def order() -> int:
            await asyncio.sleep(0.05)
            orders.append(1)
            return len(orders)

        async with AppClient(app, headers={"idempotency-key": f"ten-{section}"}) as client:
            if section == "DATABASES":
                pools: Any = app.state.components["DATABASES"]
                await SqlStore(pools.manager.get_client).create()

            replies = await asyncio.gather(*(client.post("/orders") for _ in range(10)))

        assert [reply.data() for reply in replies] == [1] * 10
