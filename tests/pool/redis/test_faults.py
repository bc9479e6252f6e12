"""What happens to commands when the connection or the server does not."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import psutil
import pytest
import redis.exceptions

from tests.servers import StartServer
from tools.servers import RedisServer, ValkeyServer
from ws_core.testing import FaultProxy
from ws_pool.errors import (
    AcquireTimeout,
    ClosedError,
    MaybeExecuted,
    NotReadyError,
    UnavailableError,
    UsageError,
)
from ws_pool.redis import RedisPool

pytestmark = pytest.mark.outage


class TestLostConnections:
    """Commands in flight, unsent ones, and those that come during an outage."""

    async def test_a_write_whose_reply_is_lost_may_have_been_executed(
        self, redis_server: RedisServer
    ) -> None:
        """A lost reply to a write is an error, also for code that knows redis-py's errors only."""
        redis_server.command("FLUSHALL")

        async with (
            FaultProxy(redis_server.host, redis_server.port) as proxy,
            RedisPool(url=proxy.url(redis_server.url), name="shop") as pool,
        ):
            proxy.drop_reply(match="INCRBY")

            with pytest.raises(MaybeExecuted, match=r"'shop'.*INCRBY.*may or may not") as caught:
                await pool.redis.incr("n")

            assert isinstance(caught.value, redis.exceptions.ConnectionError)
            assert caught.value.context["command"] == "INCRBY"
            assert await pool.redis.get("n") == b"1"

    async def test_a_read_whose_reply_is_lost_is_repeated(self, redis_server: RedisServer) -> None:
        """A command that only reads is sent again, without the caller noticing."""
        redis_server.command("FLUSHALL")

        async with (
            FaultProxy(redis_server.host, redis_server.port) as proxy,
            RedisPool(url=proxy.url(redis_server.url)) as pool,
        ):
            await pool.redis.set("k", "v")
            proxy.drop_reply(match="GET")
            assert await pool.redis.get("k") == b"v"
            assert pool.statistics().shared[0].losses == 1

    async def test_at_least_once_repeats_writes_too(self, redis_server: RedisServer) -> None:
        """On request a write is repeated, and then may count twice."""
        redis_server.command("FLUSHALL")

        async with (
            FaultProxy(redis_server.host, redis_server.port) as proxy,
            RedisPool(url=proxy.url(redis_server.url)) as pool,
        ):
            proxy.drop_reply(match="INCRBY")
            assert await pool.redis.with_retry("at_least_once").incr("n") == 2
            proxy.drop_reply(match="INCR")
            assert await pool.redis.execute_command("INCR", "n", retry="at_least_once") == 4

    async def test_a_pipeline_of_reads_is_repeated_and_one_with_a_write_is_not(
        self, redis_server: RedisServer
    ) -> None:
        """A pipeline is as safe to repeat as all of its commands."""
        async with (
            FaultProxy(redis_server.host, redis_server.port) as proxy,
            RedisPool(url=proxy.url(redis_server.url)) as pool,
        ):
            proxy.drop_reply(match="ECHO")

            async with pool.redis.pipeline(transaction=False) as pipe:
                pipe.echo("a")
                pipe.echo("b")
                assert await pipe.execute() == [b"a", b"b"]

            proxy.drop_reply(match="ECHO")

            async with pool.redis.pipeline(transaction=False) as pipe:
                pipe.echo("a")
                pipe.incr("n")

                with pytest.raises(MaybeExecuted):
                    await pipe.execute()

    async def test_a_command_that_always_loses_its_connection_gives_up(
        self, redis_server: RedisServer
    ) -> None:
        """A read is not repeated for ever."""
        async with (
            FaultProxy(redis_server.host, redis_server.port) as proxy,
            RedisPool(url=proxy.url(redis_server.url)) as pool,
        ):
            for nth in range(1, 10):
                proxy.drop_reply(nth, match="ECHO")

            with pytest.raises(MaybeExecuted, match="ECHO"):
                await pool.redis.echo("x")

    async def test_a_short_outage_is_bridged(self, start_server: StartServer) -> None:
        """Commands that come while the server restarts wait for it, in order."""
        server = start_server(RedisServer)

        async with RedisPool(url=server.url, outage_timeout=30.0) as pool:
            await asyncio.to_thread(server.kill)
            commands = [asyncio.ensure_future(pool.redis.rpush("list", number)) for number in range(50)]
            await asyncio.to_thread(server.restart)

            assert await asyncio.gather(*commands) == list(range(1, 51))
            assert await pool.redis.lrange("list", 0, -1) == [str(number).encode() for number in range(50)]

    async def test_a_long_outage_fails_fast_and_ends_by_itself(self, start_server: StartServer) -> None:
        """While the server is down commands fail at once and say why; when it is back all works, unasked."""
        server = start_server(RedisServer)

        async with RedisPool(url=server.url, outage_timeout=0.1) as pool:
            await asyncio.to_thread(server.kill)

            while pool.statistics().shared[0].connected:
                await asyncio.sleep(0)

            with pytest.raises(UnavailableError, match="cannot reach its server") as caught:
                await pool.redis.set("k", 1)

            assert isinstance(caught.value, redis.exceptions.ConnectionError)
            began = asyncio.get_running_loop().time()

            with pytest.raises(UnavailableError):
                await pool.redis.set("k", 1)

            assert asyncio.get_running_loop().time() - began < 1.0
            assert not (await pool.health()).ok
            await asyncio.to_thread(server.restart)
            began = asyncio.get_running_loop().time()

            while not (await pool.health()).ok:
                await asyncio.sleep(0.01)

            assert asyncio.get_running_loop().time() - began < 2

    async def test_half_closed_and_cut_connections_are_replaced(self, redis_server: RedisServer) -> None:
        """Whether the server hangs up in order or not, the next commands find another connection."""
        async with (
            FaultProxy(redis_server.host, redis_server.port) as proxy,
            RedisPool(url=proxy.url(redis_server.url)) as pool,
        ):
            for end in (proxy.cut, proxy.half_close):
                end()

                while pool.statistics().shared[0].connected:
                    await asyncio.sleep(0)

                assert await pool.redis.ping()

    async def test_a_black_hole_is_noticed(self, redis_server: RedisServer) -> None:
        """When replies stop coming the connection is killed after the command timeout."""
        async with (
            FaultProxy(redis_server.host, redis_server.port) as proxy,
            RedisPool(url=proxy.url(redis_server.url), command_timeout=1.5, outage_timeout=30.0) as pool,
        ):
            proxy.black_hole()
            reading = asyncio.ensure_future(pool.redis.echo("x"))

            with pytest.raises(MaybeExecuted, match=r"silent for 1\.5 s"):
                await pool.redis.incr("n")

            proxy.heal()
            assert await reading == b"x"


class TestBackPressure:
    """A server that does not keep up."""

    @pytest.mark.parametrize("kind", [RedisServer, ValkeyServer])
    async def test_a_paused_server_costs_bounded_memory(
        self, start_server: StartServer, kind: type[RedisServer]
    ) -> None:
        """With the server paused under load line, queue and memory stay bounded; afterwards all goes on."""
        server = start_server(kind)
        value = b"x" * 100_000

        async with RedisPool(
            url=server.url,
            command_timeout=60.0,
            max_pending=200,
            max_bytes=4 << 20,
            max_queue=100,
        ) as pool:
            await pool.redis.set("warm", value)
            before = psutil.Process().memory_info().rss
            server.pause()
            writes = [asyncio.ensure_future(pool.redis.set("k", value)) for _ in range(2_000)]
            reads = [asyncio.ensure_future(pool.redis.get("warm")) for _ in range(2_000)]
            await asyncio.sleep(0)
            refused = [task for task in (*writes, *reads) if task.done()]
            shared = pool.statistics().shared[0]

            assert shared.in_line <= 200
            assert shared.queued <= 100
            assert shared.bytes_in_line <= (4 << 20) + 100 * 100_100 + 200_000
            assert psutil.Process().memory_info().rss - before < 64 << 20
            assert len(refused) >= 3_600
            assert {type(task.exception()) for task in refused} <= {
                AcquireTimeout,
                *AcquireTimeout.__subclasses__(),
            }

            server.resume()
            outcomes = await asyncio.gather(*writes, *reads, return_exceptions=True)
            served = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
            assert len(served) == 4_000 - len(refused)
            assert await pool.redis.ping()

    async def test_who_waits_for_room_is_served_in_order(self, start_server: StartServer) -> None:
        """Callers beyond the limit wait in a queue, first in, first out."""
        server = start_server(RedisServer)

        async with RedisPool(url=server.url, max_pending=5) as pool:
            server.pause()
            commands = [asyncio.ensure_future(pool.redis.rpush("list", number)) for number in range(100)]
            await asyncio.sleep(0)
            assert pool.statistics().shared[0].queued == 95
            server.resume()
            assert await asyncio.gather(*commands) == list(range(1, 101))
            assert await pool.redis.lrange("list", 0, -1) == [str(number).encode() for number in range(100)]

    async def test_waiting_for_room_has_an_end(self, start_server: StartServer) -> None:
        """A command that gets no room in time fails with the number of pending ones; it was not sent."""
        server = start_server(RedisServer)

        async with RedisPool(url=server.url, max_pending=1, acquire_timeout=0.05) as pool:
            server.pause()
            first = asyncio.ensure_future(pool.redis.incr("n"))
            await asyncio.sleep(0)

            with pytest.raises(AcquireTimeout, match="1 pending"):
                await pool.redis.incr("n")

            server.resume()
            assert await first == 1
            assert await pool.redis.get("n") == b"1"

    async def test_cancelled_while_queued_is_never_sent(self, start_server: StartServer) -> None:
        """A command that is cancelled before it was sent stays unsent, and its place is given on."""
        server = start_server(RedisServer)

        async with RedisPool(url=server.url, max_pending=1) as pool:
            server.pause()
            first, second, third = (asyncio.ensure_future(pool.redis.incr("n")) for _ in range(3))
            await asyncio.sleep(0)
            second.cancel()
            server.resume()
            assert (await first, await third) == (1, 2)

    async def test_large_values_do_not_starve_others(self, redis_url: str) -> None:
        """While values of 64 MB go back and forth, other callers are served all along."""
        served = 0

        async def ask(pool: RedisPool) -> None:
            nonlocal served

            while True:
                await pool.redis.ping()
                served += 1

        async with RedisPool(url=redis_url, shared_connections=1) as pool:
            asking = asyncio.ensure_future(ask(pool))
            value = os.urandom(64 << 20)

            for _ in range(2):
                before = served
                await pool.redis.set("large", value)
                assert await pool.redis.get("large") == value
                assert served > before

            asking.cancel()


class TestLife:
    """Start, close, and who may use a pool."""

    async def test_close_waits_for_replies(self, start_server: StartServer) -> None:
        """Replies that are due arrive before the pool is closed; afterwards it refuses."""
        server = start_server(RedisServer)
        pool = RedisPool(url=server.url)
        await pool.start()
        client = pool.redis
        server.pause()
        commands = [asyncio.ensure_future(client.incr("n")) for _ in range(10)]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(pool.close())
        await asyncio.sleep(0)
        server.resume()
        await closing
        assert await asyncio.gather(*commands) == list(range(1, 11))

        with pytest.raises(ClosedError):
            await client.get("n")

        with pytest.raises(ClosedError):
            _ = pool.redis

        await pool.close()

    async def test_close_does_not_wait_for_ever(self, start_server: StartServer) -> None:
        """Replies that don't come in time are given up with `MaybeExecuted`."""
        server = start_server(RedisServer)
        pool = RedisPool(url=server.url)
        await pool.start()
        server.pause()
        command = asyncio.ensure_future(pool.redis.incr("n"))
        await asyncio.sleep(0)
        await pool.close(timeout=0.05)

        with pytest.raises(MaybeExecuted, match="closed"):
            await command

        server.resume()

    async def test_start_tells_what_is_wrong(self, start_server: StartServer) -> None:
        """A wrong address and a wrong password are errors of the start, without the password."""
        server = start_server(RedisServer, config={"requirepass": "right"})

        for url, why in (
            (server.url.replace(":right@", ":wrong@"), "refused the credentials"),
            (server.url.replace(":right@", ""), "refused the credentials|NOAUTH|Authentication required"),
            ("redis://127.0.0.1:1", "Connect call failed|refused"),
        ):
            pool = RedisPool(url=url)

            with pytest.raises(UnavailableError, match=why) as caught:
                await pool.start()

            assert "wrong" not in str(caught.value).replace("WRONGPASS", "")
            await pool.close()

        async with RedisPool(url=server.url) as pool:
            assert await pool.redis.ping()
            assert "right" not in repr(pool)
            assert "right" not in pool.url

    async def test_before_the_start_and_twice(self, redis_url: str) -> None:
        """A pool that was not started, or is started again, says so."""
        pool = RedisPool(url=redis_url)

        for use in (lambda: pool.redis, pool.statistics):
            with pytest.raises(NotReadyError, match="not started"):
                use()

        async with pool:
            with pytest.raises(UsageError, match="started before"):
                await pool.start()

    def test_another_loop_is_refused(self, redis_url: str) -> None:
        """Use from another event loop is an error at once, and no hang."""

        async def start() -> tuple[RedisPool, Any]:
            pool = RedisPool(url=redis_url)
            await pool.start()
            return pool, pool.redis

        async def use(client: Any) -> None:
            for call in (client.get("k"), client.echo("x"), client.ping()):
                with pytest.raises(UsageError, match="another event loop"):
                    await call

            pipe = client.pipeline()
            pipe.get("k")

            with pytest.raises(UsageError, match="another event loop"):
                await pipe.execute()

        with asyncio.Runner() as first:
            pool, client = first.run(start())
            asyncio.run(use(client))
            first.run(pool.close())

    async def test_a_leak_is_warned_about(self, redis_url: str) -> None:
        """A pool that is dropped without being closed warns."""
        pool = RedisPool(url=redis_url)
        await pool.start()

        with pytest.warns(ResourceWarning, match="was not closed"):
            pool.__del__()

        await pool.close()

    async def test_a_fork_is_noticed(self, redis_url: str) -> None:
        """In a forked child the pool refuses to use its parent's connections."""
        async with RedisPool(url=redis_url) as pool:
            pool._forked()

            with pytest.raises(UsageError, match="before a fork"):
                _ = pool.redis

            pool._state = "open"  # the parent's pool goes on, and is closed

    async def test_several_shared_connections(self, any_redis_url: str) -> None:
        """With several shared connections a task keeps to one for its writes, so they keep their order."""
        async with RedisPool(url=any_redis_url, shared_connections=8) as pool:

            async def work(name: str) -> None:
                for number in range(100):
                    task = asyncio.ensure_future(pool.redis.set(name, number))
                    await asyncio.sleep(0)
                    task.cancel() if number % 2 else await task
                    await asyncio.gather(task, return_exceptions=True)

            await asyncio.gather(*(work(f"key{index}") for index in range(20)))
            shared_connections = pool.statistics().shared
            assert len(shared_connections) == 8
            assert sum(shared.commands > 10 for shared in shared_connections) > 1

    async def test_unix_socket_acl_user_and_credentials(self, start_server: StartServer) -> None:
        """A unix socket, an ACL user, and credentials that are asked for at each connect."""
        server = start_server(ValkeyServer, unix_socket=True)
        server.command("ACL", "SETUSER", "bob", "on", ">secret", "~*", "&*", "+@all")
        asked = 0

        async def credentials() -> tuple[str, str]:
            nonlocal asked
            asked += 1
            return "bob", "secret"

        async with RedisPool(path=server.unix_path, credentials=credentials, client_name="tests") as pool:
            assert await pool.redis.acl_whoami() == "bob"
            assert await pool.redis.client_getname() in {"tests", b"tests"}

            async with pool.get_client(alone=True) as alone:
                assert await alone.acl_whoami() == "bob"

        assert asked >= 2

        async with RedisPool(path=server.unix_path, username="bob", password=lambda: "secret", db=2) as pool:
            assert await pool.redis.acl_whoami() == "bob"
            info = await pool.redis.client_info()
            assert info["db"] == "2" or info["db"] == 2

    async def test_a_server_without_hello_speaks_resp2(self, start_server: StartServer) -> None:
        """A server that does not know HELLO is served in RESP2, and replies have redis-py's shapes for it."""
        server = start_server(RedisServer, config={"rename-command": 'HELLO ""'})

        async with RedisPool(url=server.url, decode_responses=True) as pool:
            await pool.redis.zadd("z", {"a": 1})
            await pool.redis.hset("h", mapping={"f": "v"})
            assert await pool.redis.zrange("z", 0, -1, withscores=True) == [("a", 1.0)]
            assert await pool.redis.hgetall("h") == {"f": "v"}

    async def test_text_that_cannot_be_decoded_is_its_callers_error(self, redis_url: str) -> None:
        """A reply that cannot be decoded fails for its caller, and for no other."""
        async with RedisPool(url=redis_url, decode_responses=True) as pool:
            await pool.redis.set("binary", b"\xff\xfe")
            before, binary, after = await asyncio.gather(
                pool.redis.echo("before"),
                pool.redis.get("binary"),
                pool.redis.echo("after"),
                return_exceptions=True,
            )

            assert isinstance(binary, UnicodeDecodeError)
            assert (before, after) == ("before", "after")

    async def test_other_encodings(self, redis_url: str) -> None:
        """Text goes out and comes back in the pool's encoding; naming one means decoded replies."""
        async with RedisPool(url=redis_url, encoding="latin-1") as pool:
            await pool.redis.set("k", "grüße")
            assert await pool.redis.get("k") == "grüße"

        async with RedisPool(url=redis_url) as pool:
            assert await pool.redis.get("k") == "grüße".encode("latin-1")


class TestUnsent:
    """Commands that were never written."""

    async def test_a_command_that_cannot_be_sent(
        self, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A command whose connection is always lost before it was sent says that it was not sent."""
        async with RedisPool(url=redis_url) as pool:
            shared = pool.redis._shared
            assert shared is not None
            kill = shared.connection.__class__._flush
            monkeypatch.setattr(
                shared.connection.__class__,
                "_flush",
                lambda broken: broken.kill("cut before the write"),
            )

            with pytest.raises(UnavailableError, match=r"could not send|cannot reach") as caught:
                await pool.redis.incr("n")

            assert not isinstance(caught.value, MaybeExecuted)
            monkeypatch.setattr(shared.connection.__class__, "_flush", kill)
