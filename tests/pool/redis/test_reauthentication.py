"""Credentials that change while connections are in use."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from redis.auth.token import SimpleToken
from redis.credentials import CredentialProvider, StreamingCredentialProvider
from redis.exceptions import WatchError

from tests.pool.redis._support import eventually
from tests.servers import StartServer
from tools.servers import ClusterServers, RedisServer, ValkeyServer
from ws_pool.errors import ConfigError, UnavailableError, UsageError
from ws_pool.redis import RedisPool

USERS = ("old", "new")  # two users: ACL WHOAMI shows which login a connection has


@pytest.fixture(scope="module", params=[RedisServer, ValkeyServer])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """Start a server with two users."""
    with request.param() as started:
        for user in USERS:
            started.command("ACL", "SETUSER", user, "on", f">{user}", "~*", "&*", "+@all")

        yield started


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> None:
    """Begin each test with an empty server."""
    if "server" in request.fixturenames:
        request.getfixturevalue("server").command("FLUSHALL")


class Rotating:
    """Credentials of a user, until others take their place."""

    def __init__(self) -> None:
        self.present = ("old", "old")
        self.calls = 0

    def __call__(self) -> tuple[str, str]:
        """Return the present ones."""
        self.calls += 1
        return self.present

    def rotate(self, user: str = "new", password: str = "new") -> None:
        """Return others from now on."""
        self.present = (user, password)


class Streaming(StreamingCredentialProvider):
    """A provider that reports its tokens, as redis-entraid's does."""

    def __init__(self) -> None:
        self.report: Callable[[Any], Any] = lambda _: None
        self.report_error: Callable[[Exception], Any] = lambda _: None
        self.user = "old"

    async def get_credentials_async(self) -> tuple[str, str]:
        """Return the present token."""
        return self.user, self.user

    def get_credentials(self) -> tuple[str, str]:
        """Not used."""
        raise NotImplementedError

    def on_next(self, callback: Callable[[Any], Any]) -> None:
        """Remember who wants tokens."""
        self.report = callback

    def on_error(self, callback: Callable[[Exception], Any]) -> None:
        """Remember who wants errors."""
        self.report_error = callback

    def is_streaming(self) -> bool:
        """Say so."""
        return True

    def token(self, user: str, password: str | None = None) -> SimpleToken:
        """Make a token, and give it to new connections as well."""
        self.user = user
        return SimpleToken(password or user, -1, 0, {"oid": user})


@pytest.fixture
def rotating() -> Rotating:
    """Return credentials that change."""
    return Rotating()


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
async def pool(
    server: RedisServer, rotating: Rotating, request: pytest.FixtureRequest
) -> AsyncIterator[RedisPool]:
    """Start a pool that logs in as the old user."""
    async with RedisPool(
        url=server.url, credentials=rotating, protocol=request.param, decode_responses=True
    ) as started:
        assert await started.redis.acl_whoami() == "old"
        yield started


def logins(server: RedisServer, kind: str = "") -> list[str]:
    """Return the users of the connections that clients have, but for this one's."""
    lines = str(server.command("CLIENT", "LIST")).splitlines()
    entries = [dict(word.split("=", 1) for word in line.split(" ") if "=" in word) for line in lines]
    return sorted(entry["user"] for entry in entries if entry["user"] in USERS and kind in entry["cmd"])


async def taken(pool: RedisPool, queue: str, timeout: float) -> list[str]:
    """Take an item: the name of its queue, and its value."""
    return list(await pool.redis.execute_command("BLPOP", queue, timeout))


class TestSharedConnections:
    """Commands of all tasks go on."""

    async def test_no_command_is_lost(self, pool: RedisPool, rotating: Rotating, server: RedisServer) -> None:
        """Under load every connection logs in again, none is replaced, and each command has its reply."""
        rounds, going = 0, True

        async def work(name: str) -> int:
            count = 0

            while going:
                count += 1
                assert await pool.redis.incr(name) == count

            return count

        tasks = [asyncio.create_task(work(f"n{number}")) for number in range(20)]

        for rounds in range(1, 11):
            user = USERS[rounds % 2]
            rotating.rotate(user, user)
            await pool.reauthenticate()
            assert await pool.redis.acl_whoami() == user
            await asyncio.sleep(0)

        going = False
        counts = await asyncio.gather(*tasks)
        assert [int(await pool.redis.get(f"n{number}") or 0) for number in range(20)] == counts
        (shared,) = pool.statistics().shared
        assert (shared.connects, shared.losses, shared.dropped) == (1, 0, 0)

    async def test_a_rotated_password(self, start_server: StartServer, rotating: Rotating) -> None:
        """The same user with another password: live connections, and those to come, use the new one."""
        server = start_server(ValkeyServer)
        server.command("ACL", "SETUSER", "bob", "on", ">1", "~*", "&*", "+@all")
        rotating.rotate("bob", "1")

        async with RedisPool(url=server.url, credentials=rotating, decode_responses=True) as pool:
            for number in range(2, 6):
                server.command("ACL", "SETUSER", "bob", f">{number}", f"<{number - 1}")
                rotating.rotate("bob", str(number))
                await pool.reauthenticate()
                assert await pool.redis.blpop("empty", timeout=0.01) is None
                server.command("CLIENT", "KILL", "USER", "bob")
                assert await pool.redis.acl_whoami() == "bob"

    async def test_a_refusal_leaves_things_as_they_are(
        self, pool: RedisPool, rotating: Rotating, server: RedisServer
    ) -> None:
        """What the server refuses is an error, and connections go on with their login."""
        await pool.redis.blpop("empty", timeout=0.01)
        rotating.rotate("new", "wrong")

        with pytest.raises(UnavailableError, match="refused the new credentials"):
            await pool.reauthenticate()

        assert await pool.redis.acl_whoami() == "old"
        rotating.rotate("old", "old")
        await pool.redis.rpush("q", "x")
        assert await taken(pool, "q", 5) == ["q", "x"]
        assert set(logins(server)) == {"old"}
        rotating.rotate()
        await pool.reauthenticate()
        assert await pool.redis.acl_whoami() == "new"

    async def test_every_node_of_a_cluster(
        self, cluster_servers: ClusterServers, cluster_url: str, rotating: Rotating
    ) -> None:
        """All masters, and all their shared connections."""
        cluster_servers.wait_whole()

        for node in cluster_servers.nodes:
            for user in USERS:
                node.command("ACL", "SETUSER", user, "on", f">{user}", "~*", "&*", "+@all")

        try:
            async with RedisPool(
                url=cluster_url,
                cluster=True,
                credentials=rotating,
                shared_connections=2,
                decode_responses=True,
            ) as pool:
                rotating.rotate()
                await pool.reauthenticate()
                found = [user for node in cluster_servers.nodes for user in logins(node)]
                assert found == ["new"] * len(pool.statistics().shared)
        finally:
            for node in cluster_servers.nodes:
                node.command("ACL", "DELUSER", *USERS)


class TestDedicatedConnections:
    """Blocked commands, sessions, subscribers, idle connections."""

    async def test_idle_connections(self, pool: RedisPool, rotating: Rotating, server: RedisServer) -> None:
        """An idle connection logs in before it is used again."""
        await pool.redis.blpop("empty", timeout=0.01)
        rotating.rotate()
        await pool.reauthenticate()
        before = pool.statistics().leased[0].opened
        await pool.redis.blpop("empty", timeout=0.01)
        assert logins(server) == ["new", "new"]
        assert pool.statistics().leased[0].opened == before

    async def test_an_idle_connection_that_was_lost(
        self, pool: RedisPool, rotating: Rotating, server: RedisServer
    ) -> None:
        """One that does not live any more is replaced, without a word."""
        await pool.redis.blpop("empty", timeout=0.01)
        rotating.rotate()
        await pool.reauthenticate()
        server.command("CLIENT", "KILL", "USER", "old")
        await pool.redis.rpush("q", "x")
        assert await taken(pool, "q", 5) == ["q", "x"]

    async def test_blocked_commands(self, pool: RedisPool, rotating: Rotating, server: RedisServer) -> None:
        """A command that blocks is repeated by the new login, and loses nothing."""
        tasks = [asyncio.create_task(taken(pool, f"q{number}", 0)) for number in range(5)]
        await eventually(lambda: logins(server, "blpop") == ["old"] * 5)
        rotating.rotate()
        await pool.reauthenticate()
        await eventually(lambda: logins(server, "blpop") == ["new"] * 5)

        for number in range(5):
            await pool.redis.rpush(f"q{number}", number)

        assert await asyncio.gather(*tasks) == [[f"q{number}", str(number)] for number in range(5)]

    async def test_items_during_changes(self, pool: RedisPool, rotating: Rotating) -> None:
        """Of a queue that is filled while logins change, each item arrives once."""
        found: list[int] = []

        async def take() -> None:
            while (item := await taken(pool, "q", 0))[1] != "end":
                found.append(int(item[1]))

        tasks = [asyncio.create_task(take()) for _ in range(4)]

        for number in range(200):
            await pool.redis.rpush("q", number)

            if not number % 20:
                user = USERS[number // 20 % 2]
                rotating.rotate(user, user)
                await pool.reauthenticate()

        await pool.redis.rpush("q", *["end"] * 4)
        await asyncio.gather(*tasks)
        assert sorted(found) == list(range(200))

    async def test_a_session_between_its_commands(
        self, pool: RedisPool, rotating: Rotating, server: RedisServer
    ) -> None:
        """A session keeps its state, and logs in as soon as none of its commands runs."""
        async with pool.get_client(alone=True) as alone, pool.redis.client() as other:
            await alone.select(1)
            await other.select(2)
            rotating.rotate()
            await pool.reauthenticate()
            assert logins(server) == ["new"] * 3
            await alone.set("k", 1)
            assert (await alone.acl_whoami(), await other.acl_whoami()) == ("new", "new")
            assert [await r.dbsize() for r in (alone, other)] == [1, 0]

            # Between MULTI and EXEC an AUTH would be queued: it waits.
            await alone.execute_command("MULTI")
            rotating.rotate("old", "old")
            await pool.reauthenticate()
            await alone.execute_command("INCR", "k")
            assert await alone.execute_command("EXEC") == [2]
            assert await alone.acl_whoami() == "old"

            # One that watches keys goes on watching them.
            async with alone.pipeline() as pipe:
                await pipe.watch("k")
                rotating.rotate()
                await pool.reauthenticate()  # does not wait for the pipeline, which is ours
                await pipe.get("k")
                pipe.multi()
                pipe.incr("k")
                assert await pipe.execute() == [3]

            await eventually(lambda: logins(server) == ["new"] * 3)
            assert await alone.acl_whoami() == "new"

    async def test_a_session_whose_login_is_refused(
        self, pool: RedisPool, rotating: Rotating, server: RedisServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Its state is worth more: it goes on with the login that it has."""
        async with pool.get_client(alone=True) as alone:
            await alone.select(1)
            backend = pool._backend
            assert backend is not None
            source = backend._settings.endpoint.credentials
            assert source is not None
            source.latest = source.received(("new", "wrong"))
            assert await alone.acl_whoami() == "old"
            assert "keeps its login" in caplog.text
            source.latest = source.received(("new", "new"))
            assert await alone.acl_whoami() == "new"

    async def test_subscribers(self, pool: RedisPool, rotating: Rotating, server: RedisServer) -> None:
        """In RESP3 a subscriber logs in, too, and misses no message; in RESP2 the server forbids it."""
        protocol = pool._settings.endpoint.protocol

        async with pool.redis.pubsub() as pubsub:
            await pubsub.subscribe("news")
            assert await pubsub.get_message(timeout=10) is not None
            rotating.rotate()
            await pool.reauthenticate()
            await pool.redis.publish("news", "1")
            message = await pubsub.get_message(timeout=10)
            assert message is not None
            assert message["data"] == "1"
            assert logins(server) == sorted(["new", "new" if protocol == 3 else "old"])
            await pubsub.ping()
            message = await pubsub.get_message(timeout=10)
            assert message is not None
            assert message["type"] == "pong"

    async def test_a_refused_subscriber(
        self, server: RedisServer, rotating: Rotating, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It keeps its login, its subscriptions and the order of its replies."""
        async with (
            RedisPool(url=server.url, credentials=rotating, protocol=3, decode_responses=True) as pool,
            pool.redis.pubsub() as pubsub,
        ):
            assert pool._backend is not None
            source = pool._backend._settings.endpoint.credentials
            assert source is not None
            await pubsub.subscribe("news")
            assert await pubsub.get_message(timeout=10) is not None
            source.latest = source.received(("new", "wrong"))
            pool._backend._log_in_subscribers()
            await pubsub.ping("x")
            message = await pubsub.get_message(timeout=10)
            assert message is not None
            assert (message["type"], message["data"]) == ("pong", "x")
            assert "subscriptions keep their login" in caplog.text


class TestWhenItHappens:
    """By an interval, by a provider, by a call."""

    async def test_an_interval(self, server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
        """The callable is called again and again; one that fails is called once more."""
        answers: Iterator[str | Exception] = iter(["old", ValueError("no secrets today"), "wrong"])

        async def credentials() -> tuple[str, str]:
            answer = next(answers, "new")

            if isinstance(answer, Exception):
                raise answer

            return ("new", "wrong") if answer == "wrong" else (answer, answer)

        async with RedisPool(url=server.url, credentials=credentials, reauth_interval=0.01) as pool:
            await eventually(lambda: logins(server) == ["new"])
            assert pool.statistics().shared[0].connects == 1

        assert "no secrets today" in caplog.text
        assert "refused the new credentials" in caplog.text

    async def test_a_streaming_provider(self, server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
        """A token is used when it comes: in the loop, where its provider awaits us, or from a thread."""
        provider = Streaming()

        async with RedisPool(url=server.url, credential_provider=provider, decode_responses=True) as pool:
            assert await pool.redis.acl_whoami() == "old"
            await provider.report(provider.token("new"))
            await eventually(lambda: logins(server) == ["new"])
            thread = threading.Thread(target=provider.report, args=[provider.token("old")])
            thread.start()
            await eventually(lambda: logins(server) == ["old"])
            thread.join()
            await provider.report_error(ValueError("no tokens today"))
            assert "no tokens today" in caplog.text
            assert pool.statistics().shared[0].connects == 1

        provider.report(provider.token("new"))  # after the end of the pool nobody listens

    async def test_a_token_that_comes_too_early(
        self, server: RedisServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A token which the server does not know yet is tried again until it does, or another comes."""
        provider = Streaming()

        async with RedisPool(url=server.url, credentials=provider, decode_responses=True) as pool:
            provider.report(provider.token("new", "later"))
            await eventually(lambda: "refused the new credentials" in caplog.text)
            assert await pool.redis.acl_whoami() == "old"
            server.command("ACL", "SETUSER", "new", ">later")
            await eventually(lambda: logins(server) == ["new"])
            server.command("ACL", "SETUSER", "new", "<later")

            caplog.clear()
            provider.report(provider.token("new", "never"))
            await eventually(lambda: "refused the new credentials" in caplog.text)
            provider.report(provider.token("old"))
            await eventually(lambda: logins(server) == ["old"])

    async def test_a_provider_without_a_stream(self, server: RedisServer) -> None:
        """A plain provider is called for each connection, and by `reauthenticate`."""

        class Plain(CredentialProvider):
            user = "old"

            def get_credentials(self) -> tuple[str, str]:
                return self.user, self.user

        provider = Plain()

        async with RedisPool(url=server.url, credentials=provider, decode_responses=True) as pool:
            assert await pool.redis.acl_whoami() == "old"
            provider.user = "new"
            await pool.reauthenticate()
            assert await pool.redis.acl_whoami() == "new"

    async def test_a_change_during_a_handshake(self, server: RedisServer) -> None:
        """A connection that has logged in with what was replaced meanwhile logs in once more."""
        asked, answer = asyncio.Event(), asyncio.Event()
        user = "old"

        async def credentials() -> tuple[str, str]:
            found = user

            if held:
                asked.set()
                await answer.wait()

            return found, found

        held = False

        async with RedisPool(url=server.url, credentials=credentials, decode_responses=True) as pool:
            assert await pool.redis.acl_whoami() == "old"
            held = True
            server.command("CLIENT", "KILL", "USER", "old")
            await asked.wait()
            held, user = False, "new"
            await pool.reauthenticate()
            answer.set()
            await eventually(lambda: logins(server) == ["new"])

    async def test_fixed_passwords(self, redis_url: str) -> None:
        """A pool without credentials cannot log in again, and options that need some say so."""
        async with RedisPool(url=redis_url) as pool:
            with pytest.raises(UsageError, match="has a fixed password: give it credentials="):
                await pool.reauthenticate()

        with pytest.raises(ConfigError, match=r"reauth_interval needs RedisPool\.credentials"):
            RedisPool(reauth_interval=5)

        with pytest.raises(ConfigError, match=r"credentials and RedisPool\.password exclude each other"):
            RedisPool(password="p", credentials=lambda: "p")


async def test_what_watches_is_not_fooled(server: RedisServer, rotating: Rotating) -> None:
    """A change of a watched key is noticed across a change of the login."""
    async with RedisPool(url=server.url, credentials=rotating) as pool, pool.redis.pipeline() as pipe:
        await pipe.watch("k")
        rotating.rotate()
        await pool.reauthenticate()
        await pool.redis.set("k", "other")
        pipe.multi()
        pipe.set("k", "mine")

        with pytest.raises(WatchError):
            await pipe.execute()
