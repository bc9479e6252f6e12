"""Threads: calls of scripts that the server refuses, has forgotten, or does not answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis, exceptions

from tools.servers import RedisServer
from ws_core.errors import UnavailableError
from ws_redislock._redis.scripts import load
from ws_redislock.errors import WsError
from ws_redislock.sync import FrequencyLimiter, MutexLock
from ws_redislock.sync._redis.clients import resolve
from ws_redislock.sync._redis.script_client import ScriptClient

CLAIM = load("claim")
WHAT = ("claim", "k")


@pytest.fixture
def scripts(client: Redis) -> ScriptClient:
    """Return a caller of scripts on a plain client."""
    return ScriptClient(client)


@pytest.fixture
def powerless(redis_server: RedisServer, client: Redis) -> Iterator[Redis]:
    """Yield a client of a user that may run scripts, but nothing in them."""
    client.execute_command("ACL", "SETUSER", "none", "reset", "on", ">secret", "~*", "+evalsha", "+eval")

    with Redis(host=redis_server.host, port=redis_server.port, username="none", password="secret") as user:
        yield user


class TestRefused:
    """The server answers with an error."""

    def test_without_rights(self, powerless: Redis):
        """The error names the lock and the remedy, wherever a command was missing."""
        with pytest.raises(UnavailableError, match=r"lock 'k': Redis refused ENTER.*under 'Rights'"):
            MutexLock(powerless, "k", 60).acquire()

        with pytest.raises(UnavailableError, match=r"refused DEL.*under 'Rights'"):
            FrequencyLimiter(powerless, 60, 3).reset("k")

    def test_on_a_further_attempt(self, powerless: Redis):
        """So does that of a script that the server had not known."""
        with pytest.raises(UnavailableError, match=r"refused CLAIM.*under 'Rights'"):
            ScriptClient(powerless)._call_again(CLAIM, (b"k",), ("x", 60_000), WHAT, 1.0, 1.0, None)

    def test_a_mistake_in_the_data(self, client: Redis, scripts: ScriptClient):
        """It stays what it is, also after the script was sent again."""
        client.hset("k", "a", "b")
        client.script_flush()

        for _ in range(2):
            with pytest.raises(exceptions.ResponseError, match="WRONGTYPE") as caught:
                scripts.call(CLAIM, (b"k",), ("x", 60_000), what=WHAT, budget=5.0)

            assert not isinstance(caught.value, WsError)


class TestUnanswered:
    """No reply comes."""

    def test_unreachable(self):
        """The error says what was not answered, and each attempt was noted as perhaps arrived."""
        owned, _ = resolve("redis://127.0.0.1:1/0")
        scripts = ScriptClient(owned)
        attempts: list[int] = []

        with pytest.raises(UnavailableError, match="claim 'k': Redis did not answer CLAIM in time"):
            scripts.call(
                CLAIM, (b"k",), ("x", 1), what=WHAT, budget=0.1, doubt=lambda: attempts.append(len(attempts))
            )

        assert len(attempts) > 1

        with pytest.raises(UnavailableError, match=r"did not answer DEL within 0\.1 s"):
            scripts.delete(b"k", 0.1, what=WHAT)

        assert owned is not None

    def test_a_wrong_password_is_not_tried_again(self, redis_server: RedisServer):
        """The connection never succeeds, so one attempt is enough."""
        attempts: list[int] = []

        with (
            Redis(host=redis_server.host, port=redis_server.port, username="no", password="no") as client,
            pytest.raises(UnavailableError, match="AuthenticationError"),
        ):
            ScriptClient(client).call(
                CLAIM, (b"k",), ("x", 1), what=WHAT, budget=60, doubt=lambda: attempts.append(1)
            )

        assert len(attempts) == 1


class TestMany:
    """Several scripts at once."""

    def test_answers_and_errors(self, client: Redis, scripts: ScriptClient):
        """Each call has its own answer or error, in order; a forgotten script is sent."""
        client.hset("wrong", "a", "b")
        client.script_flush()
        calls = [(CLAIM, (key,), ("x", 60_000)) for key in (b"k", b"wrong", b"k")]
        first, second, third = scripts.many(calls, 1.0)
        assert first == third == [1]
        assert isinstance(second, exceptions.ResponseError)
        assert scripts.many([], 1.0) == []

    def test_delete(self, client: Redis, scripts: ScriptClient):
        """A key is deleted."""
        client.set("k", "v")
        scripts.delete(b"k", 1.0, what=WHAT)
        assert client.get("k") is None
