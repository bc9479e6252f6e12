"""Every command comes to an end, and the wait for it is worth what it says."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from redis import exceptions as driver

from tests.servers import StartServer
from tools.servers import RedisServer, ValkeyServer
from ws_core.testing import FaultProxy
from ws_pool._redis.client.pipeline import MAX_SHARED
from ws_pool._redis.connection.queue import CommandQueue
from ws_pool.errors import AcquireTimeout, ClosedError, UnavailableError, WsError
from ws_pool.redis import RedisPool

pytestmark = pytest.mark.outage


async def count(pool: RedisPool, number: int, *, transaction: bool) -> list[object]:
    """Send a pipeline."""
    async with pool.redis.pipeline(transaction=transaction) as pipe:
        for _ in range(number):
            pipe.incr("n")

        return await pipe.execute()


async def down(pool: RedisPool) -> None:
    """Wait until a pool knows that its server is gone."""
    while pool.statistics().shared[0].connected:
        await asyncio.sleep(0)


class TestPipelinesEnd:
    """A pipeline that was never sent ends as a single command does."""

    @pytest.mark.parametrize(("number", "transaction"), [(1, False), (3, False), (1, True), (3, True)])
    @pytest.mark.parametrize(
        ("what", "error"), [("outage", UnavailableError), ("room", AcquireTimeout), ("close", ClosedError)]
    )
    async def test_unsent(
        self,
        start_server: StartServer,
        what: str,
        error: type[WsError],
        number: int,
        transaction: bool,
    ) -> None:
        """A pipeline that waits in vain for the server, for room, or in a pool that closes, fails."""
        server = start_server(RedisServer)
        pool = RedisPool(
            url=server.url, outage_timeout=0.2 if what == "outage" else 30, acquire_timeout=0.2, max_pending=1
        )
        await pool.start()

        try:
            if what == "room":
                server.pause()
                first = asyncio.ensure_future(pool.redis.execute_command("INCR", "n"))
                await asyncio.sleep(0)
            else:
                server.kill()
                await down(pool)

            sent = asyncio.ensure_future(count(pool, number, transaction=transaction))

            if what == "close":
                while not pool.statistics().shared[0].queued:
                    await asyncio.sleep(0)

                await pool.close()

            async with asyncio.timeout(10):
                with pytest.raises(error):
                    await sent

            if what == "room":
                server.resume()
                assert await first == 1
        finally:
            await pool.close()

    async def test_a_storm_with_little_room_and_short_outages(self, redis_server: RedisServer) -> None:
        """2,000 pipelines amid cuts, short timeouts and a short queue all end."""
        async with (
            FaultProxy(redis_server.host, redis_server.port) as proxy,
            RedisPool(
                url=proxy.url(redis_server.url), outage_timeout=0.01, acquire_timeout=0.01, max_pending=20
            ) as pool,
        ):
            ends = {"reply": 0, "error": 0}

            async def caller(index: int) -> None:
                for turn in range(20):
                    try:
                        await count(pool, 1 + (index + turn) % 5, transaction=bool(turn % 2))
                        ends["reply"] += 1
                    except WsError:
                        ends["error"] += 1
                        await asyncio.sleep(0.001)

            async def cutter() -> None:
                while True:
                    replies = ends["reply"]

                    while ends["reply"] == replies:
                        await asyncio.sleep(0.001)

                    await asyncio.sleep(0.01)
                    proxy.cut()

            cutting = asyncio.ensure_future(cutter())

            async with asyncio.timeout(60):
                await asyncio.gather(*map(caller, range(100)))

            cutting.cancel()

        assert sum(ends.values()) == 2_000
        assert all(ends.values())


async def be_alone(pool: RedisPool) -> None:
    """Take a client that is alone."""
    async with pool.get_client(alone=True) as alone:
        assert await alone.ping()


async def watch(pool: RedisPool) -> None:
    """Watch a key."""
    async with pool.redis.pipeline() as pipe:
        await pipe.watch("k")


async def subscribe(pool: RedisPool) -> None:
    """Subscribe to a channel."""
    async with pool.redis.pubsub() as pubsub:
        await pubsub.subscribe("channel")


async def send_much(pool: RedisPool) -> None:
    """Send a pipeline that is too long to share a connection."""
    async with pool.redis.pipeline(transaction=False) as pipe:
        for _ in range(MAX_SHARED + 1):
            pipe.echo("x")

        assert len(await pipe.execute()) == MAX_SHARED + 1


Use = Callable[[RedisPool], Awaitable[None]]
USES: tuple[Use, ...] = (be_alone, watch, subscribe, send_much)


class TestWaiting:
    """How long commands wait, and for what."""

    async def test_a_dedicated_connection_is_waited_for_in_an_outage(self, start_server: StartServer) -> None:
        """A blocking command waits for the server as long as a shared one does, and no longer."""
        server = start_server(RedisServer)

        async with RedisPool(url=server.url, outage_timeout=30, decode_responses=True) as pool:
            await asyncio.to_thread(server.kill)
            await down(pool)
            waiting = asyncio.ensure_future(pool.redis.execute_command("BLPOP", "queue", 30))

            while not pool.statistics().leased[0].down:
                await asyncio.sleep(0)

            await asyncio.to_thread(server.restart)
            await pool.redis.rpush("queue", "item")
            assert list(await waiting) == ["queue", "item"]

        async with RedisPool(url=server.url, outage_timeout=0.1) as pool:
            await asyncio.to_thread(server.kill)
            await down(pool)

            with pytest.raises(UnavailableError):
                await pool.redis.execute_command("BLPOP", "queue", 1)

    @pytest.mark.parametrize("use", USES)
    async def test_so_does_all_that_needs_one(self, start_server: StartServer, use: Use) -> None:
        """Clients that are alone, WATCH, subscriptions and long pipelines wait as well, and as long."""
        server = start_server(RedisServer)

        async with RedisPool(url=server.url, outage_timeout=30) as pool:
            await asyncio.to_thread(server.kill)
            await down(pool)
            waiting = asyncio.ensure_future(use(pool))

            while not pool.statistics().leased[0].down:
                await asyncio.sleep(0)

            await asyncio.to_thread(server.restart)
            await waiting

        async with RedisPool(url=server.url, outage_timeout=0.1, acquire_timeout=60) as pool:
            await asyncio.to_thread(server.kill)
            await down(pool)

            with pytest.raises(UnavailableError) as caught:
                await use(pool)

            assert isinstance(caught.value, driver.ConnectionError)

    async def test_a_refusal_is_cheap(
        self, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A full queue is not searched anew for each command that it refuses."""
        server = start_server(RedisServer)
        swept = 0
        remove_cancelled = CommandQueue.remove_cancelled

        def counted(queue: CommandQueue) -> None:
            nonlocal swept
            swept += 1
            remove_cancelled(queue)

        monkeypatch.setattr(CommandQueue, "remove_cancelled", counted)

        async with RedisPool(url=server.url, max_pending=10, command_timeout=60) as pool:
            server.pause()
            waiting = [asyncio.ensure_future(pool.redis.echo("x")) for _ in range(10_010)]
            await asyncio.sleep(0)
            monkeypatch.setattr(pool.redis._loop, "time", lambda: 1e9)  # so that no time passes

            for _ in range(100):
                with pytest.raises(AcquireTimeout):
                    await pool.redis.echo("x")

            monkeypatch.undo()
            server.resume()
            await asyncio.gather(*waiting)

        assert swept <= 1

    @pytest.mark.parametrize("kind", [RedisServer, ValkeyServer])
    async def test_wait_waits_for_what_was_written(
        self, start_server: StartServer, kind: type[RedisServer]
    ) -> None:
        """WAIT counts replicas that have the task's last write, not those that had an older one."""
        master = start_server(kind)
        replica = start_server(kind, config={"replicaof": f"{master.host} {master.port}"})

        async with RedisPool(url=master.url, decode_responses=True) as pool:
            while not (await pool.redis.info("replication"))["connected_slaves"]:
                await asyncio.sleep(0.01)

            await pool.redis.set("k", 1)
            assert await pool.redis.wait(1, 10_000) == 1
            replica.pause()

            for number in range(2):
                await pool.redis.set("k", number)
                assert await pool.redis.wait(1, 50) == 0

            replica.resume()
            assert await pool.redis.wait(1, 10_000) == 1

    async def test_waitaof(self, start_server: StartServer) -> None:
        """WAITAOF is answered once the log is on the disk."""
        server = start_server(ValkeyServer, config={"appendonly": "yes"})

        async with RedisPool(url=server.url) as pool:
            await pool.redis.set("k", 1)
            assert (await pool.redis.waitaof(1, 0, 10_000))[0] == 1


@asynccontextmanager
async def narrow(server: RedisServer, rate: float) -> AsyncIterator[int]:
    """Forward to a server at so many bytes a second, with small buffers, and give the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
    ends: list[asyncio.StreamWriter] = []
    pumps: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(16_384):
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(len(data) / rate if len(data) > 1_000 else 0)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(server.host, server.port)
        ends.extend((writer, back))
        pumps.update(map(asyncio.ensure_future, (pump(reader, back), pump(there, writer))))

    serving = await asyncio.start_server(forward, sock=listener, limit=16_384)

    try:
        yield listener.getsockname()[1]
    finally:
        serving.close()

        for task in pumps:
            task.cancel()

        await asyncio.gather(*pumps, return_exceptions=True)

        for end in ends:
            end.close()


async def test_a_large_upload_takes_its_time(redis_server: RedisServer) -> None:
    """A value that takes longer to send than a reply may take is not a dead connection."""
    async with (
        narrow(redis_server, rate=4_000_000) as port,
        RedisPool(url=f"redis://127.0.0.1:{port}", command_timeout=0.5) as pool,
    ):
        size = 6_000_000
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await asyncio.gather(pool.redis.set("upload", b"x" * size), pool.redis.echo("x"))
        assert loop.time() - began > 0.5
        assert await pool.redis.strlen("upload") == size
        assert pool.statistics().shared[0].losses == 0
        await pool.redis.delete("upload")


async def _refused(pool: RedisPool, options: dict[str, str]) -> weakref.ref[BaseException]:
    """Run into an error of the server, and return a reference to it."""
    try:
        await pool.redis.execute_command("LPUSH", "k", "v", **options)
    except driver.ResponseError as error:
        return weakref.ref(error)

    raise AssertionError("it was not refused")


async def test_a_refused_command_leaves_nothing_behind(redis_url: str) -> None:
    """The server's error holds no circle of references that keeps the command until the collector comes."""
    async with RedisPool(url=redis_url) as pool:
        await pool.redis.set("k", "text")
        gc.collect()
        gc.disable()

        try:
            for special in ({}, {"retry": "safe"}):
                error = await _refused(pool, special)
                await asyncio.sleep(0)  # the task's present step still holds the reply
                assert error() is None
        finally:
            gc.enable()
