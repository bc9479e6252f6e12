"""Clients whose block never ends, in a task that has ended; and hooks that are coroutine functions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ws_pool import MysqlPool, SqlitePool
from ws_pool._sql.pool import SqlPool


@pytest.fixture(params=["aiomysql", "asyncmy", "sqlite", "memory"])
async def make(request: pytest.FixtureRequest, mysql_url: str, tmp_path: Path) -> AsyncIterator[Any]:
    """Pools of one connection, of each driver."""
    pools: list[SqlPool] = []

    async def start(**options: Any) -> SqlPool:
        options = {"max_size": 1, **options}
        pool: SqlPool

        if request.param == "memory":
            pool = SqlitePool("sqlite:///:memory:", **options)
        elif request.param == "sqlite":
            pool = SqlitePool(f"sqlite:///{tmp_path}/x.db", **options)
        else:
            pool = MysqlPool(mysql_url, driver=request.param, **options)

        await pool.start()
        pools.append(pool)
        return pool

    yield start

    for pool in pools:
        await pool.close()


class TestEndedTasks:
    """A task that ends inside of its block loses no connection."""

    async def test_its_connection_comes_back(self, make: Any):
        """The next client is served within seconds, and a warning names the task and the place."""
        pool = await make(leak_threshold=60)

        async def careless() -> None:
            client = await pool.get_client(read_only=True).__aenter__()
            await client.select("SELECT 1")

        task = asyncio.create_task(careless(), name="careless")
        await asyncio.wait([task])

        with pytest.warns(ResourceWarning, match=r"of task 'careless' was dropped (.|\n)* in careless"):
            await asyncio.wait_for(pool.select("SELECT 1"), 5)

        assert not pool.bound

    async def test_so_it_does_when_the_task_has_failed(self, make: Any):
        """The traceback of the task's error holds its client, and does not keep the connection."""
        pool = await make()

        async def careless() -> None:
            client = await pool.get_client().__aenter__()
            raise ValueError(client)

        task = asyncio.create_task(careless(), name="careless")
        await asyncio.wait([task])
        assert task.exception()
        del task

        with pytest.warns(ResourceWarning, match="of task 'careless' was dropped"):
            await asyncio.wait_for(pool.execute("SELECT 1"), 5)

    async def test_a_client_in_use_elsewhere_is_left_alone(self, make: Any):
        """A client that another task has taken over keeps its connection, and can be left there."""
        pool = await make()
        context = pool.get_client()
        client = await asyncio.create_task(context.__aenter__())
        await asyncio.sleep(2.5)
        assert (await client.find("SELECT 1 AS one"))["one"] == 1
        await context.__aexit__(None, None, None)
        assert pool.statistics().leased == 0


class TestHooks:
    """Hooks of SQL pools may be coroutine functions."""

    async def test_on_acquire_is_awaited(self, make: Any):
        """What it runs over the connection is done when the client has it."""
        seen: list[int] = []

        async def on_acquire(connection: Any) -> None:
            reply = await connection.run("SELECT 41 + 1", None)
            seen.append(reply.rows[0][0])

        pool = await make(on_acquire=on_acquire)
        seen.clear()

        async with pool.get_client() as client:
            assert seen == [42]
            await client.select("SELECT 1")

    async def test_on_release_is_awaited_before_the_next_client(self, make: Any):
        """A slow hook of a release has ended when the connection is used again."""
        events: list[str] = []

        async def on_release(connection: Any) -> None:
            events.append("begins")
            await connection.run("SELECT 1", None)
            await asyncio.sleep(0.2)
            events.append("ends")

        pool = await make(on_release=on_release)

        async with pool.get_client():
            pass

        async with pool.get_client():
            assert events[-1] == "ends"
