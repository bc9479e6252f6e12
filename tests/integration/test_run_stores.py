"""The stores of last runs on the pools of ws-pool."""

from __future__ import annotations

from pathlib import Path

from tests.tasks.test_catch_up import check_store
from ws_pool.mysql import MysqlPool
from ws_pool.postgres import PostgresPool
from ws_pool.redis import RedisPool
from ws_pool.sqlite import SqlitePool
from ws_tasks.stores import RedisRunStore, SqlRunStore


class TestRunStores:
    async def test_sqlite(self, tmp_path: Path) -> None:
        """A file of SQLite."""
        async with SqlitePool(url=f"sqlite:///{tmp_path / 'runs.db'}") as pool:
            await check_store(SqlRunStore(pool))

    async def test_mysql(self, mysql_url: str) -> None:
        """MariaDB or MySQL."""
        async with MysqlPool(url=mysql_url) as pool:
            await pool.execute("DROP TABLE IF EXISTS stored_runs")
            await check_store(SqlRunStore(pool, table="stored_runs"))

    async def test_postgres(self, postgres_url: str) -> None:
        """PostgreSQL."""
        async with PostgresPool(url=postgres_url) as pool:
            await check_store(SqlRunStore(pool, table="stored_runs"))

    async def test_redis(self, redis_url: str) -> None:
        """A Redis pool."""
        async with RedisPool(url=redis_url) as pool:
            await check_store(RedisRunStore(pool))
