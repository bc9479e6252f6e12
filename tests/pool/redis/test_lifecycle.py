"""Beginning and end of a pool, whoever is cancelled or comes in between."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.servers import StartServer
from tools.servers import RedisServer
from ws_core.testing import FaultProxy
from ws_pool._redis.embedded import EmbeddedServer
from ws_pool.errors import ClosedError, UnavailableError
from ws_pool.redis import RedisPool


def is_gone(server: EmbeddedServer, pid: int) -> bool:
    """Return whether the server has ended."""
    return server._process is None and not Path(f"/proc/{pid}").exists()


class TestClosing:
    """One closing, for which everybody waits."""

    async def test_a_cancelled_close_goes_on(self) -> None:
        """A caller of close() that is cancelled leaves nothing open, neither links nor the server."""
        pool = RedisPool.embedded()
        await pool.start()
        server = pool._server
        assert server is not None
        assert server._process is not None
        pid = server._process.pid

        async with pool.get_client(alone=True):
            closing = asyncio.create_task(pool.close(timeout=0.2))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            closing.cancel()

            with pytest.raises(asyncio.CancelledError):
                await closing

            assert server._process is not None
            await pool.close()

        assert is_gone(server, pid)

    @pytest.mark.parametrize("cluster", [False, True], ids=["server", "cluster"])
    async def test_workers_do_not_hold_it_up(
        self, redis_url: str, cluster_url: str, *, cluster: bool
    ) -> None:
        """Workers that wait for items are unblocked: they get a ClosedError, and no item is lost."""
        pool = RedisPool(url=cluster_url if cluster else redis_url, cluster=cluster, decode_responses=True)
        await pool.start()
        redis = pool.redis
        await redis.delete("jobs")
        taken: list[object] = []

        async def work() -> None:
            while True:
                taken.append(await redis.blpop(["jobs"], timeout=0))

        workers = [asyncio.create_task(work()) for _ in range(20)]

        while pool.statistics().status()["leased_leased"] != 20:
            await asyncio.sleep(0.01)

        await redis.rpush("jobs", 1, 2, 3)
        began = asyncio.get_running_loop().time()
        await pool.close(timeout=10)
        ends = await asyncio.gather(*workers, return_exceptions=True)
        assert asyncio.get_running_loop().time() - began < 3
        assert {type(end) for end in ends} == {ClosedError}

        async with RedisPool(url=pool.url, cluster=cluster, decode_responses=True) as other:
            assert len(taken) + await other.redis.llen("jobs") == 3

    async def test_all_callers_wait_for_the_end(self, redis_url: str) -> None:
        """A second close() returns when the first does, not before."""
        pool = RedisPool(url=redis_url)
        await pool.start()
        order: list[str] = []

        async def close(name: str) -> None:
            await pool.close(timeout=20)
            order.append(name)

        async with asyncio.TaskGroup() as group, pool.get_client(alone=True):
            group.create_task(close("first"))
            await asyncio.sleep(0)
            group.create_task(close("second"))
            await asyncio.sleep(0.01)
            assert not order
            order.append("back")

        assert order == ["back", "first", "second"]
        await pool.close()

    async def test_a_close_ends_a_start(self, redis_server: RedisServer, redis_url: str) -> None:
        """close() during start() ends it, with an error that names the reason; nothing is left open."""
        async with FaultProxy(redis_server.host, redis_server.port) as proxy:
            proxy.delay(30)
            pool = RedisPool(url=f"redis://{proxy.host}:{proxy.port}")
            starting = asyncio.create_task(pool.start())

            while not proxy.connections:
                await asyncio.sleep(0.005)

            await pool.close()

            with pytest.raises(ClosedError, match="was closed"):
                await starting

            assert not pool.ready

            with pytest.raises(ClosedError):
                _ = pool.redis

    async def test_a_cancelled_start_leaves_nothing(self, redis_server: RedisServer) -> None:
        """A start() that was cancelled is undone, and the pool can be started again."""
        async with FaultProxy(redis_server.host, redis_server.port) as proxy:
            proxy.delay(30)
            pool = RedisPool(url=f"redis://{proxy.host}:{proxy.port}")
            starting = asyncio.create_task(pool.start())

            while not proxy.connections:
                await asyncio.sleep(0.005)

            starting.cancel()

            with pytest.raises(asyncio.CancelledError):
                await starting

            proxy.heal()

            async with pool:
                assert await pool.redis.ping()

    async def test_the_url_of_an_embedded_server_names_its_database(self) -> None:
        """Another pool with the URL uses the same database."""
        async with RedisPool.embedded(db=2) as pool:
            await pool.redis.set("k", 1)

            async with RedisPool(url=pool.url) as other:
                assert await other.redis.get("k") == b"1"


class TestWaiting:
    """A pool may start while its server does not serve yet."""

    async def test_a_server_that_comes_later(self, start_server: StartServer) -> None:
        """With ``wait`` the start is tried again until the server is there; without, it fails."""
        server = start_server(RedisServer)
        server.kill()
        pool = RedisPool(server.url)

        with pytest.raises(UnavailableError):
            await pool.start()

        starting = asyncio.create_task(pool.start(wait=30))
        await asyncio.sleep(0.1)
        assert not starting.done()
        await asyncio.to_thread(server.restart)
        await starting
        assert await pool.redis.ping()
        await pool.close()

    async def test_a_server_that_loads(self, start_server: StartServer) -> None:
        """A server that is loading its data is waited for."""
        server = start_server(RedisServer)
        server.command("DEBUG", "POPULATE", 20_000)
        server.command("SAVE")
        server.command("CONFIG", "SET", "key-load-delay", 20, "loading-process-events-interval-bytes", 1024)
        loading = asyncio.create_task(asyncio.to_thread(server.command, "DEBUG", "RELOAD", "NOSAVE"))
        pool = RedisPool(server.url)

        async with asyncio.timeout(30):
            while int(str(server.info("persistence")["loading"])) == 0:
                await asyncio.sleep(0.01)

            await pool.start(wait=30)

        assert await pool.redis.dbsize() == 20_000
        await pool.close()
        await loading

    async def test_time_is_up(self, start_server: StartServer) -> None:
        """The last error is raised when the time is up, and the pool may be started again."""
        server = start_server(RedisServer)
        server.kill()
        pool = RedisPool(server.url)

        for _ in range(2):
            with pytest.raises(UnavailableError, match="cannot reach"):
                await pool.start(wait=0.2)

        await pool.close()

    async def test_a_refused_login_is_not_waited_for(self, start_server: StartServer) -> None:
        """A wrong password does not become right."""
        server = start_server(RedisServer, config={"requirepass": "secret"})

        async with asyncio.timeout(20):
            with pytest.raises(UnavailableError, match=r"WRONGPASS|password"):
                await RedisPool(f"redis://:wrong@{server.host}:{server.port}").start(wait=60)
