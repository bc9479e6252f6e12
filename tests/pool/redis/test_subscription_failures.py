"""Subscribers that share a connection, when something goes wrong in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from tests.pool.redis._support import eventually
from tests.servers import StartServer
from tools.servers import ClusterServers, RedisServer
from ws_pool._redis.client.mailbox import MAX_UNREAD, Mailbox, Topic
from ws_pool._redis.client.pubsub import SharedPubSub
from ws_pool._redis.client.subscriptions import Subscriptions
from ws_pool._redis.commands.keys import hash_slot
from ws_pool.redis import RedisPool

CHANNEL = Topic("", b"c")


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
async def pool(any_redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[RedisPool]:
    """Yield a pool of either protocol, whose subscribers check their connection often."""
    async with RedisPool(
        url=any_redis_url, protocol=request.param, decode_responses=True, command_timeout=30
    ) as opened:
        yield opened


async def message_of(pubsub: PubSub, kind: str, *, errors: bool = False) -> dict[str, Any]:
    """Return the next message of a kind; with ``errors``, after whatever errors come before."""
    async with asyncio.timeout(30):
        while True:
            try:
                message = await pubsub.get_message(timeout=30)
            except RedisError:
                if not errors:
                    raise

                await asyncio.sleep(0.01)
                continue

            if message is not None and message["type"] == kind:
                return dict(message)


def subscriptions(pool: RedisPool) -> Subscriptions:
    """Return what the subscribers of a pool share."""
    assert pool._backend is not None
    assert pool._backend._context is not None
    return pool._backend._context.subscriptions


def leased(pool: RedisPool) -> int:
    """Count the connections in use."""
    return sum(statistics.leased for statistics in pool.statistics().leased)


class TestMailbox:
    """What has arrived for one subscriber."""

    async def test_errors_in_a_row_are_one(self) -> None:
        """Nobody learns more from the second error, if nothing came in between."""
        mailbox = Mailbox()
        mailbox.fail(RedisConnectionError("first"))
        mailbox.fail(RedisConnectionError("second"))

        with pytest.raises(RedisConnectionError, match="first"):
            await mailbox.get(0)

        assert await mailbox.get(0) is None

    async def test_each_confirmation_comes_once(self) -> None:
        """Topics are counted as a server counts them, and what is not there changes no count."""
        mailbox = Mailbox()
        other = Topic("s", b"sharded")
        mailbox.topics |= {CHANNEL: False, other: False}

        for topic in (CHANNEL, CHANNEL, other):
            mailbox.confirm(topic)

        mailbox.remove(Topic("", b"unknown"))
        mailbox.remove(CHANNEL)
        mailbox.unconfirm(other)
        mailbox.unconfirm(other)
        mailbox.put_end(other)
        found = [await mailbox.get(0) for _ in range(4)]
        assert found == [
            [b"subscribe", b"c", 1],
            [b"ssubscribe", b"sharded", 1],
            [b"sunsubscribe", b"sharded", 0],
            None,
        ]

    async def test_what_is_not_read_is_dropped_with_an_error(self) -> None:
        """The error stands where the messages are missing."""
        mailbox = Mailbox()

        for number in range(MAX_UNREAD + 2):
            mailbox.put([b"message", b"c", b"%d" % number])

        with pytest.raises(RedisConnectionError, match=r"10000 messages .* were not read"):
            await mailbox.get(0)

        found = [await mailbox.get(0) for _ in range(2)]
        assert found == [[b"message", b"c", b"%d" % number] for number in range(MAX_UNREAD, MAX_UNREAD + 2)]


class TestSubscribing:
    """Subscriptions that come twice, too late or in vain."""

    async def test_twice(self, pool: RedisPool) -> None:
        """A subscriber that subscribes again gets another confirmation, and each message once."""
        async with pool.redis.pubsub() as pubsub:
            for _ in range(2):
                await pubsub.subscribe("c")
                assert (await message_of(pubsub, "subscribe"))["data"] == 1

            await pool.redis.publish("c", "1")
            await pool.redis.publish("c", "2")
            assert [(await message_of(pubsub, "message"))["data"] for _ in range(2)] == ["1", "2"]

    async def test_the_end_of_what_never_was(self, pool: RedisPool) -> None:
        """As by a server, it is confirmed, and changes nothing for others."""
        async with pool.redis.pubsub() as one, pool.redis.pubsub() as other:
            await other.subscribe("c")
            await message_of(other, "subscribe")
            assert isinstance(one, SharedPubSub)
            await one.execute_command("UNSUBSCRIBE", "c")
            assert (await one.parse_response())[0] in {"unsubscribe", b"unsubscribe"}
            await pool.redis.publish("c", "1")
            assert (await message_of(other, "message"))["data"] == "1"
            assert "1 over 1" in repr(subscriptions(pool))

    async def test_without_a_server(self, start_server: StartServer) -> None:
        """A new subscription fails and is not kept; an earlier one goes on when the server is back."""
        server = start_server(RedisServer)

        async with (
            RedisPool(url=server.url, decode_responses=True, outage_timeout=0.05) as pool,
            pool.redis.pubsub() as pubsub,
        ):
            await pubsub.subscribe("c")
            await message_of(pubsub, "subscribe")
            await asyncio.to_thread(server.kill)

            with pytest.raises(RedisConnectionError):
                await message_of(pubsub, "message")

            for channel in ("new", "c"):
                with pytest.raises(RedisError):
                    await pubsub.subscribe(channel)

            await asyncio.to_thread(server.start)
            assert (await message_of(pubsub, "subscribe", errors=True))["channel"] == "c"
            await eventually(lambda: server.command("PUBSUB", "NUMSUB", "c", "new") == ["c", 1, "new", 0])

    async def test_given_up_while_the_server_is_away(self, start_server: StartServer) -> None:
        """Nothing is subscribed again for who has gone meanwhile."""
        server = start_server(RedisServer)

        async with (
            RedisPool(url=server.url, decode_responses=True, outage_timeout=0.05) as pool,
            pool.redis.pubsub() as gone,
            pool.redis.pubsub() as stays,
        ):
            for pubsub, channel in ((gone, "gone"), (stays, "stays")):
                await pubsub.subscribe(channel)
                await message_of(pubsub, "subscribe")

            await asyncio.to_thread(server.kill)

            with pytest.raises(RedisConnectionError):
                await message_of(gone, "message")

            assert len(subscriptions(pool)._restoring) == 2
            await gone.aclose()
            assert len(subscriptions(pool)._restoring) == 1
            await asyncio.to_thread(server.start)
            await message_of(stays, "subscribe", errors=True)
            assert server.command("PUBSUB", "NUMSUB", "gone", "stays") == ["gone", 0, "stays", 1]
            await eventually(lambda: not subscriptions(pool)._restoring)

    async def test_a_refusal_while_it_is_restored(self, start_server: StartServer) -> None:
        """A server that does not let us in is tried again until it does."""
        server = start_server(RedisServer, config={"requirepass": "right"})
        password = "right"

        async with (
            RedisPool(
                f"redis://{server.host}:{server.port}", credentials=lambda: password, decode_responses=True
            ) as pool,
            pool.redis.pubsub() as pubsub,
        ):
            await pubsub.subscribe("c")
            await message_of(pubsub, "subscribe")
            password = "wrong"
            server.command("CLIENT", "KILL", "TYPE", "pubsub")

            with pytest.raises(RedisConnectionError):
                await message_of(pubsub, "message")

            with pytest.raises(RedisError):
                await message_of(pubsub, "subscribe")

            password = "right"
            await message_of(pubsub, "subscribe", errors=True)
            await pool.redis.publish("c", "1")
            assert (await message_of(pubsub, "message"))["data"] == "1"


class TestConnections:
    """What happens to the one connection of all."""

    async def test_a_ping_before_any_subscription(self, any_redis_url: str) -> None:
        """It is answered; then the connection is of no more use, and is given back."""
        async with RedisPool(any_redis_url, command_timeout=0.5, decode_responses=True) as pool:
            pubsub = pool.redis.pubsub()
            await pubsub.ping("hello")
            assert await pubsub.parse_response() == ["pong", "hello"]
            await eventually(lambda: leased(pool) == 0)
            await pubsub.aclose()

    async def test_a_refused_ping(self, start_server: StartServer) -> None:
        """A PING that the ACL forbids fails nobody's subscription."""
        server = start_server(RedisServer)
        server.command("ACL", "SETUSER", "u", "on", ">p", "~*", "&*", "+@all")

        async with (
            RedisPool(url=server.url, username="u", password="p", decode_responses=True) as pool,
            pool.redis.pubsub() as pubsub,
        ):
            await pubsub.subscribe("c")
            await message_of(pubsub, "subscribe")
            server.command("ACL", "SETUSER", "u", "-ping")
            await pubsub.ping()
            await pool.redis.publish("c", "1")
            assert (await message_of(pubsub, "message"))["data"] == "1"

    @pytest.mark.parametrize("silent", [False, True], ids=["answers", "silent"])
    async def test_a_ping_at_the_end_of_a_heartbeat(
        self, pool: RedisPool, monkeypatch: pytest.MonkeyPatch, silent: bool
    ) -> None:
        """It has a heartbeat for its reply: a server is not silent since nothing came before the PING."""
        async with pool.redis.pubsub() as pubsub:
            await pubsub.subscribe("c")
            await message_of(pubsub, "subscribe")
            (link,) = subscriptions(pool)._links.values()
            assert link._connection is not None
            read, calls = link._connection.read_response, 0

            async def read_response(**options: Any) -> Any:
                nonlocal calls
                calls += 1

                if calls == 1:
                    await pubsub.ping()

                return None if calls == 1 or (silent and calls == 2) else await read(**options)

            monkeypatch.setattr(link._connection, "read_response", read_response)
            await pool.redis.publish("c", "1")  # what it waits for now is read by the real one
            await message_of(pubsub, "message")

            if silent:
                with pytest.raises(RedisConnectionError, match="silent for 30 s"):
                    await message_of(pubsub, "pong")
            else:
                await message_of(pubsub, "pong")
                assert not link.closed

    async def test_a_heartbeat_is_nobodys_message(self, any_redis_url: str) -> None:
        """In silence the connection is checked; subscribers see nothing of it."""
        async with (
            RedisPool(any_redis_url, command_timeout=1.0, decode_responses=True) as pool,
            pool.redis.pubsub() as pubsub,
        ):
            await pubsub.subscribe("c")
            await message_of(pubsub, "subscribe")
            assert await pubsub.get_message(timeout=2.5) is None
            await pool.redis.publish("c", "1")
            assert (await message_of(pubsub, "message"))["data"] == "1"

    async def test_a_failure_of_our_own(
        self, pool: RedisPool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whatever ends the connection, subscribers get an error and then go on, and the log has it."""
        async with pool.redis.pubsub() as pubsub:
            await pubsub.subscribe("c")
            await message_of(pubsub, "subscribe")

            with monkeypatch.context() as patch:
                patch.setattr(Subscriptions, "_deliver", lambda *_: 1 / 0)
                await pool.redis.publish("c", "lost")

                with pytest.raises(RedisConnectionError, match="division"):
                    await message_of(pubsub, "message")

            assert "an unexpected failure" in caplog.text
            await message_of(pubsub, "subscribe", errors=True)
            await pool.redis.publish("c", "1")
            assert (await message_of(pubsub, "message"))["data"] == "1"

    async def test_a_cancelled_reader(self, pool: RedisPool) -> None:
        """A task that others cancel, as at the end of a loop, is a lost connection as well."""
        async with pool.redis.pubsub() as pubsub:
            await pubsub.subscribe("c")
            await message_of(pubsub, "subscribe")
            (link,) = subscriptions(pool)._links.values()
            link.task.cancel()

            with pytest.raises(RedisConnectionError, match="closed"):
                await message_of(pubsub, "message")

            link.drop()  # it is gone already

            with pytest.raises(RedisConnectionError, match="was lost"):
                link.ping(None, b"")

            await message_of(pubsub, "subscribe", errors=True)

    async def test_only_the_connections_of_one(
        self, cluster_servers: ClusterServers, cluster_url: str
    ) -> None:
        """Connections that somebody found silent are replaced, those of other subscribers are not."""
        cluster_servers.wait_whole()

        async with (
            RedisPool(url=cluster_url, cluster=True, decode_responses=True) as pool,
            pool.redis.pubsub() as one,
            pool.redis.pubsub() as other,
        ):
            assert pool._backend is not None
            assert pool._backend.topology is not None
            node_of = pool._backend.topology.node_of
            here = "channel"
            there = next(
                name
                for name in map(str, range(1000))
                if node_of(hash_slot(name.encode())) is not node_of(hash_slot(here.encode()))
            )
            await one.execute_command("SSUBSCRIBE", here)
            await other.execute_command("SSUBSCRIBE", there)
            await message_of(one, "ssubscribe")
            await message_of(other, "ssubscribe")
            assert isinstance(one, SharedPubSub)
            one.replace_connections()

            with pytest.raises(RedisConnectionError):
                await message_of(one, "smessage")

            await message_of(one, "ssubscribe", errors=True)

            for pubsub, channel in ((one, here), (other, there)):
                await pool.redis.execute_command("SPUBLISH", channel, channel)
                assert (await message_of(pubsub, "smessage"))["data"] == channel

    async def test_a_channel_whose_slot_goes_while_it_is_given_up(self, start_server: StartServer) -> None:
        """A subscriber may end what the server has just ended by itself, and begin anew."""
        cluster = start_server(ClusterServers)
        key = b"channel"

        async with (
            RedisPool(url=cluster.url, cluster=True, decode_responses=True) as pool,
            pool.redis.pubsub() as pubsub,
        ):
            await pubsub.execute_command("SSUBSCRIBE", "channel")
            await message_of(pubsub, "ssubscribe")
            await asyncio.to_thread(cluster.move_slot(hash_slot(key)).run)

            with pytest.raises(RedisConnectionError):
                await message_of(pubsub, "smessage")

            await pubsub.execute_command("SUNSUBSCRIBE", "channel")
            await pubsub.execute_command("SSUBSCRIBE", "channel")
            await message_of(pubsub, "ssubscribe", errors=True)
            await pool.redis.execute_command("SPUBLISH", "channel", "1")
            assert (await message_of(pubsub, "smessage", errors=True))["data"] == "1"

    async def test_a_refused_pattern_of_two(self, start_server: StartServer) -> None:
        """All who wanted what is refused learn it; one that has left by then does not."""
        server = start_server(RedisServer)
        server.command("ACL", "SETUSER", "u", "on", ">p", "~*", "+@all", "resetchannels", "&ok")

        async with RedisPool(url=server.url, username="u", password="p", decode_responses=True) as pool:
            one, other, gone = (pool.redis.pubsub() for _ in range(3))

            for pubsub in (one, other, gone):
                await pubsub.subscribe("secret")

            await gone.unsubscribe("secret")

            for pubsub in (one, other):
                with pytest.raises(ResponseError, match="channel"):
                    await message_of(pubsub, "subscribe")

            for pubsub in (one, other, gone):
                await pubsub.aclose()
