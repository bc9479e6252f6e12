"""Any number of subscribers over one connection of each server: `pool.redis.pubsub()`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from tests.servers import StartServer
from tools.servers import ClusterServers, RedisServer
from ws_core.testing import FaultProxy
from ws_pool._redis.client import mailbox
from ws_pool._redis.client.pubsub import SharedPubSub
from ws_pool._redis.commands.keys import hash_slot
from ws_pool.errors import ClosedError, UnavailableError
from ws_pool.redis import RedisPool


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
async def pool(any_redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[RedisPool]:
    """Yield a pool of either protocol."""
    async with RedisPool(url=any_redis_url, protocol=request.param, decode_responses=True) as opened:
        yield opened


async def take(pubsub: PubSub, timeout: float = 10) -> dict[str, Any]:
    """Return the next message that is not a confirmation."""
    async with asyncio.timeout(timeout):
        while (message := await pubsub.get_message(ignore_subscribe_messages=True, timeout=timeout)) is None:
            pass

    return dict(message)


async def confirmed(pubsub: PubSub, *channels: str) -> None:
    """Subscribe, and wait until the server has confirmed it."""
    await pubsub.subscribe(*channels)

    for channel in channels:
        message = await pubsub.get_message(timeout=10)
        assert message is not None
        assert (message["type"], message["channel"]) == ("subscribe", channel)


def subscribers(pool: RedisPool) -> int:
    """Count the connections that subscribers have."""
    return sum(leased.leased for leased in pool.statistics().leased)


class TestSharing:
    """Delivery of messages, over how many connections."""

    async def test_any_number_over_one_connection(self, pool: RedisPool) -> None:
        """A hundred subscribers share a connection, and each gets its own messages and only these."""
        pubsubs = [pool.redis.pubsub() for _ in range(100)]

        for number, pubsub in enumerate(pubsubs):
            await confirmed(pubsub, "all", f"own:{number}")

        assert subscribers(pool) == 1
        await pool.redis.publish("all", "x")

        for number in range(100):
            await pool.redis.publish(f"own:{number}", str(number))

        for number, pubsub in enumerate(pubsubs):
            assert [(await take(pubsub))["data"], (await take(pubsub))["data"]] == ["x", str(number)]
            assert await pubsub.get_message(timeout=0) is None
            await pubsub.aclose()

        await pool.redis.ping()
        assert subscribers(pool) == 0

    async def test_channels_and_patterns_are_distinct(self, pool: RedisPool) -> None:
        """One message is delivered once for each channel and pattern of a subscriber, with its handlers."""
        handled: list[dict[str, Any]] = []

        async with pool.redis.pubsub() as one, pool.redis.pubsub() as two:
            await one.psubscribe(**{"a*": handled.append})
            await one.subscribe("ab")
            await two.psubscribe("*b")

            while one.patterns and await one.get_message(timeout=0.2) is not None:
                pass

            await pool.redis.publish("ab", "1")
            assert (await take(one))["type"] == "message"
            assert (await take(two))["pattern"] == "*b"
            await one.get_message(timeout=1)
            assert [message["pattern"] for message in handled] == ["a*"]

    async def test_an_end_is_that_of_one_subscriber(self, pool: RedisPool) -> None:
        """One that unsubscribes gets no more; the other goes on, and may come back to its channel."""
        async with pool.redis.pubsub() as one, pool.redis.pubsub() as two:
            await confirmed(one, "c", "d")
            await confirmed(two, "c")
            await one.unsubscribe("c")
            ended = await one.get_message(timeout=5)
            assert ended is not None
            assert (ended["type"], ended["data"]) == ("unsubscribe", 1)
            await pool.redis.publish("c", "1")
            assert (await take(two))["data"] == "1"
            assert await one.get_message(timeout=0.05) is None
            await two.unsubscribe()
            await confirmed(one, "c")
            await pool.redis.publish("c", "2")
            assert (await take(one))["data"] == "2"

    async def test_a_ping_is_answered_to_its_sender(self, pool: RedisPool) -> None:
        """The reply to a PING comes to the subscriber that has sent it."""
        async with pool.redis.pubsub() as one, pool.redis.pubsub() as two:
            await confirmed(one, "c")
            await confirmed(two, "c")
            await one.ping("hello")
            pong = await one.get_message(timeout=5)
            assert pong is not None
            assert (pong["type"], pong["data"]) == ("pong", "hello")
            assert await two.get_message(timeout=0.05) is None

    async def test_a_slow_reader_holds_nobody_up(
        self, pool: RedisPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One that does not read gets an error for what it has missed, and others get everything."""
        monkeypatch.setattr(mailbox, "MAX_UNREAD", 50)

        async with pool.redis.pubsub() as slow, pool.redis.pubsub() as quick:
            await confirmed(slow, "c")
            await confirmed(quick, "c")

            for number in range(60):
                await pool.redis.publish("c", str(number))
                assert (await take(quick))["data"] == str(number)

            with pytest.raises(RedisConnectionError, match="50 messages"):
                await take(slow)

            rest = [(await take(slow))["data"] for _ in range(10)]
            assert rest == [str(number) for number in range(50, 60)]

    async def test_unread_bytes_are_bounded(self, pool: RedisPool, monkeypatch: pytest.MonkeyPatch) -> None:
        """Large messages count by their size."""
        monkeypatch.setattr(mailbox, "MAX_UNREAD_BYTES", 1000)

        async with pool.redis.pubsub() as slow, pool.redis.pubsub() as quick:
            await confirmed(slow, "c")
            await confirmed(quick, "c")

            for _ in range(3):
                await pool.redis.publish("c", "x" * 400)
                await take(quick)

            with pytest.raises(RedisConnectionError, match="800 bytes"):
                await take(slow)

    async def test_what_is_not_text_is_its_readers_error(self, any_redis_url: str) -> None:
        """A message that cannot be decoded fails in the hands of its reader, and others go on."""
        async with (
            RedisPool(any_redis_url, decode_responses=True) as pool,
            pool.redis.pubsub() as one,
            pool.redis.pubsub() as two,
        ):
            await confirmed(one, "binary")
            await confirmed(two, "text")
            await pool.redis.publish("binary", b"\xff")
            await pool.redis.publish("text", "fine")

            with pytest.raises(UnicodeDecodeError):
                await take(one)

            assert (await take(two))["data"] == "fine"

    async def test_reading_before_subscribing(self, pool: RedisPool) -> None:
        """As redis-py's, a PubSub without a subscription refuses to read."""
        with pytest.raises(RuntimeError, match="subscribe"):
            await pool.redis.pubsub().get_message()

    async def test_a_handler_of_pushes_has_its_own_connection(self, any_redis_url: str) -> None:
        """A PubSub with a push handler is redis-py's own, on a dedicated connection."""
        async with RedisPool(any_redis_url) as pool, pool.redis.pubsub(push_handler_func=print) as pubsub:
            assert not isinstance(pubsub, SharedPubSub)


class TestFailures:
    """A subscriber that misses something gets an error."""

    async def test_a_loss_is_reported_to_each_and_mended(self, start_server: StartServer) -> None:
        """After a loss each subscriber gets one error, its confirmation, and what is published then."""
        server = start_server(RedisServer)

        async with (
            RedisPool(url=server.url, decode_responses=True) as pool,
            pool.redis.pubsub() as one,
            pool.redis.pubsub() as two,
        ):
            await confirmed(one, "a")
            await confirmed(two, "a", "b")
            server.command("CLIENT", "KILL", "TYPE", "pubsub")

            for pubsub in (one, two):
                with pytest.raises(RedisConnectionError):
                    await take(pubsub)

            kinds = [await two.get_message(timeout=10) for _ in range(2)]
            assert sorted(kind["channel"] for kind in kinds if kind) == ["a", "b"]
            assert (await one.get_message(timeout=10) or {})["type"] == "subscribe"
            await pool.redis.publish("a", "again")
            assert [(await take(one))["data"], (await take(two))["data"]] == ["again", "again"]

    async def test_an_outage_is_an_error_until_it_ends(self, start_server: StartServer) -> None:
        """While the server is away, reading raises; a new subscription fails and leaves nothing behind."""
        server = start_server(RedisServer)

        async with (
            RedisPool(url=server.url, decode_responses=True, outage_timeout=0.2) as pool,
            pool.redis.pubsub() as old,
            pool.redis.pubsub() as new,
        ):
            await confirmed(old, "c")
            server.kill()

            for _ in range(3):
                with pytest.raises(RedisError):
                    await take(old)

            with pytest.raises(UnavailableError):
                await new.subscribe("c")

            server.restart()

            while True:
                try:
                    message = await old.get_message(timeout=10)
                except RedisError:
                    continue

                if message is not None:
                    break

            assert message["type"] == "subscribe"

            while not pool.statistics().shared[0].connected:  # which may come back a moment later
                await asyncio.sleep(0.01)

            await pool.redis.publish("c", "back")

            assert (await take(old))["data"] == "back"
            assert await new.get_message(timeout=0.05) is None

    async def test_a_silent_server_is_noticed(self, start_server: StartServer) -> None:
        """A black hole is an error to all subscribers after twice the command timeout."""
        server = start_server(RedisServer)

        async with FaultProxy(*server.address) as proxy:
            url = f"redis://{proxy.host}:{proxy.port}"

            async with (
                RedisPool(url, decode_responses=True, command_timeout=1.0) as pool,
                pool.redis.pubsub() as pubsub,
            ):
                await confirmed(pubsub, "c")
                proxy.black_hole()

                with pytest.raises(RedisError):
                    await take(pubsub)

    async def test_a_refused_channel_is_its_own_error(self, start_server: StartServer) -> None:
        """A channel that the ACL forbids fails for its subscriber alone."""
        server = start_server(RedisServer)
        server.command("ACL", "SETUSER", "u", "on", ">p", "~*", "+@all", "resetchannels", "&ok*")

        async with (
            RedisPool(url=server.url, username="u", password="p", decode_responses=True) as pool,
            pool.redis.pubsub() as good,
            pool.redis.pubsub() as bad,
        ):
            await confirmed(good, "ok")
            await bad.subscribe("secret")

            with pytest.raises(ResponseError, match="channel"):
                await take(bad)

            await pool.redis.publish("ok", "1")
            assert (await take(good))["data"] == "1"

    async def test_a_cancelled_subscriber_harms_nobody(self, pool: RedisPool) -> None:
        """One that is cancelled while it subscribes leaves the connection to the others."""
        async with pool.redis.pubsub() as one, pool.redis.pubsub() as two:
            gone = asyncio.ensure_future(one.subscribe("c"))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.wait([gone])
            await confirmed(two, "c")
            await pool.redis.publish("c", "1")
            assert (await take(two))["data"] == "1"

    async def test_nothing_is_missed_between_end_and_return(self, pool: RedisPool) -> None:
        """A confirmation of an earlier subscription does not count for a later one."""
        async with pool.redis.pubsub() as stays, pool.redis.pubsub() as pubsub:
            await confirmed(stays, "other")

            for number in range(50):
                await pubsub.subscribe("c")
                await pubsub.unsubscribe("c")
                await pubsub.subscribe("c")

                while (message := await pubsub.get_message(timeout=10)) is not None:
                    if message["type"] == "subscribe" and not pubsub._mailbox._unread:
                        break

                await pool.redis.publish("c", str(number))
                assert (await take(pubsub))["data"] == str(number)
                await pubsub.unsubscribe("c")
                await pubsub.get_message(timeout=10)

    async def test_a_pool_that_closes_ends_its_subscribers(self, any_redis_url: str) -> None:
        """A caller that waits for a message when the pool is closed gets an error, at once."""
        pool = RedisPool(any_redis_url)
        await pool.start()
        pubsub = pool.redis.pubsub()
        await pubsub.subscribe("c")
        await pubsub.get_message(timeout=5)
        waits = asyncio.ensure_future(pubsub.get_message(timeout=None))
        await asyncio.sleep(0)
        await pool.close()

        with pytest.raises(RedisConnectionError, match="closed"):
            await waits

        with pytest.raises(ClosedError):
            await pubsub.subscribe("d")

        await pubsub.aclose()


class TestCluster:
    """Sharded channels live where their slot does."""

    async def test_sharded_channels_of_all_nodes(self, cluster_url: str) -> None:
        """One PubSub listens to sharded channels of all nodes, and to those of the whole cluster."""
        channels = [f"channel:{number}" for number in range(20)]

        async with (
            RedisPool(url=cluster_url, cluster=True, decode_responses=True) as pool,
            pool.redis.pubsub() as one,
            pool.redis.pubsub() as two,
        ):
            await one.execute_command("SSUBSCRIBE", *channels)
            await two.execute_command("SSUBSCRIBE", channels[0])
            await one.subscribe("plain")
            seen = [await one.get_message(timeout=10) for _ in range(21)]
            assert sum(message is not None and message["type"] == "ssubscribe" for message in seen) == 20
            assert (await two.get_message(timeout=10) or {})["type"] == "ssubscribe"
            assert subscribers(pool) <= 3

            for channel in channels:
                assert await pool.redis.execute_command("SPUBLISH", channel, channel) == 1

            await pool.redis.publish("plain", "plain")
            received = {(await take(one))["data"] for _ in range(21)}
            assert received == {*channels, "plain"}
            assert (await take(two))["data"] == channels[0]
            await one.execute_command("SUNSUBSCRIBE", *channels)
            await one.unsubscribe()

    async def test_redis_pys_methods(self, cluster_url: str) -> None:
        """`ssubscribe` and `sunsubscribe` work, whether redis-py has them or not."""
        async with (
            RedisPool(url=cluster_url, cluster=True, decode_responses=True) as pool,
            pool.redis.pubsub() as pubsub,
        ):
            await pubsub.ssubscribe("a", "b")
            assert pubsub.subscribed
            await pubsub.get_message(timeout=10)
            await pubsub.get_message(timeout=10)
            await pool.redis.execute_command("SPUBLISH", "b", "1")
            assert (await take(pubsub))["data"] == "1"
            await pubsub.sunsubscribe("a", "b")

            while pubsub.subscribed:
                await pubsub.get_message(timeout=10)

    async def test_a_channel_follows_its_slot(self, start_server: StartServer) -> None:
        """When the slot of a sharded channel moves, its subscribers get an error and follow it."""
        cluster = start_server(ClusterServers)

        async with (
            RedisPool(url=cluster.url, cluster=True, decode_responses=True) as pool,
            pool.redis.pubsub() as moved,
            pool.redis.pubsub() as other,
        ):
            await moved.execute_command("SSUBSCRIBE", "channel")
            await confirmed(other, "plain")
            await moved.get_message(timeout=10)
            await asyncio.to_thread(cluster.move_slot(hash_slot(b"channel")).run)

            with pytest.raises(RedisConnectionError):
                await take(moved)

            while True:
                try:
                    message = await moved.get_message(timeout=10)
                except RedisError:
                    continue

                if message is not None:
                    break

            assert message["type"] == "ssubscribe"
            assert await pool.redis.execute_command("SPUBLISH", "channel", "there") == 1
            assert (await take(moved))["data"] == "there"
            await pool.redis.publish("plain", "fine")
            assert (await take(other))["data"] == "fine"
