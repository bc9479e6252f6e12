"""The rights that the documentation lists: enough, none too many, and what happens without them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.redislock._helpers import until_waiting
from tools.servers import RedisServer
from ws_core.errors import WsError
from ws_redislock import (
    FrequencyLimiter,
    MutexLock,
    ReadWriteLock,
    RunClaims,
    Semaphore,
    SlidingWindowLimiter,
    TokenBucketLimiter,
)
from ws_redislock._lock.base import BaseLock
from ws_redislock.admin import list_locks

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "redislock.md"
ROW = re.compile(r"^\| (.+?) \| `(~wsl:.+?)` \|$", re.MULTILINE)
RULES: dict[str, list[str]] = {name: rules.split() for name, rules in ROW.findall(PAGE.read_text("utf-8"))}


async def user(server: RedisServer, rules: list[str]) -> Redis:
    """Return a client of a user with these rights only."""
    async with Redis.from_url(server.url) as admin:
        await admin.execute_command("ACL", "SETUSER", "jobs", "reset", "on", ">secret", *rules)

    return Redis(host=server.host, port=server.port, username="jobs", password="secret")


async def hand_over(holder: BaseLock, waiter: BaseLock) -> float:
    """Release a lock that another waits for, who must get it; return when it was released."""

    async def release() -> float:
        await until_waiting(holder)
        began = time.monotonic()
        assert await holder.release()
        return began

    waiting, releasing = asyncio.create_task(waiter.acquire(5)), asyncio.create_task(release())
    await asyncio.wait([waiting, releasing], return_when=asyncio.FIRST_EXCEPTION)

    for task in (waiting, releasing):
        task.cancel()

    await asyncio.wait([waiting, releasing])

    for task in (waiting, releasing):
        if not task.cancelled():
            task.result()  # raise its error

    assert waiting.result()
    return releasing.result()


async def lock_in_every_way(client: Redis, server: RedisServer) -> None:
    """Use locks of all kinds: wait, renew, hand over to another process, take away, look."""
    other = Redis(host=server.host, port=server.port, username="jobs", password="secret")

    first = MutexLock(client, "k", 60, lock_delay=0.01)
    second = MutexLock(other, "k", 60, lock_delay=0.01)
    writer, reader = ReadWriteLock(client, "rw", 60).write(), ReadWriteLock(other, "rw", 60).read()
    late = ReadWriteLock(client, "rw", 60).read()

    async with client, other, first, second, writer, reader, late:
        assert await first.acquire()
        assert await first.renew()
        began = await hand_over(first, second)
        assert time.monotonic() - began < 3
        assert await first.force_release()
        assert not await second.release()

        async with Semaphore(client, "s", 2, 60) as semaphore:
            assert await semaphore.acquire()
            assert await semaphore.holders()

        assert await writer.acquire()
        assert not await late.acquire(0.1)
        await hand_over(writer, reader)


async def limit_in_every_way(client: Redis, server: RedisServer) -> None:
    """Use limiters of all kinds until they refuse, and after their window."""
    async with client:
        for limiter in (
            FrequencyLimiter(client, 0.2, 2),
            SlidingWindowLimiter(client, 0.2, 2),
            TokenBucketLimiter(client, 10, 2),
        ):
            for _ in range(2):
                assert (await limiter.hit("k")).allowed
                await limiter.hit("k")
                await limiter.hit("k")
                await asyncio.sleep(0.25)

            await limiter.peek("k")
            await limiter.hit("k")
            await limiter.reset("k")

        for limiter in (FrequencyLimiter(client, 0.2, 100), SlidingWindowLimiter(client, 0.2, 100)):
            end = time.monotonic() + 0.4

            while time.monotonic() < end:  # until some hits have left the window, and others not
                await limiter.hit("many")
                await asyncio.sleep(0.01)


async def claim_in_every_way(client: Redis, server: RedisServer) -> None:
    """Claim runs, return them, renew them and finish them."""
    async with client:
        claims = RunClaims(client)
        assert await claims.claim("run", 60)
        await claims.give_back("run")

        for done in (True, False):
            run = await claims.claim_run(f"kept {done}", 60, task="report")
            assert run.claimed
            assert not (await claims.claim_run(f"kept {done}", 60, task="report", claimer="other")).claimed
            await run.renew(60)
            await (run.finish(60) if done else run.give_back())

        await claims.open_runs("report")


async def list_in_every_way(client: Redis, server: RedisServer) -> None:
    """List a lock that another user holds."""
    async with client, Redis.from_url(server.url) as other, MutexLock(other, "k", 60).hold() as held:
        [lock] = await list_locks(client)
        assert (lock.fence, list(lock.holders), lock.waiters) == (held.fence, [held.token], 0)


USES: dict[str, Callable[[Redis, RedisServer], Awaitable[None]]] = {
    "locks of all kinds": lock_in_every_way,
    "limiters": limit_in_every_way,
    "`RunClaims`": claim_in_every_way,
    "`list_locks`": list_in_every_way,
}


class TestDocumentedRights:
    """The table of the page "Redis locks"."""

    def test_names_every_use(self):
        """The table has a row for each use."""
        assert set(RULES) == set(USES)

    @pytest.mark.parametrize("use", USES)
    async def test_are_enough(self, any_redis: RedisServer, use: str):
        """A user with the documented rules, word for word, can do everything."""
        await USES[use](await user(any_redis, RULES[use]), any_redis)

    @pytest.mark.parametrize("use", USES)
    async def test_are_the_least(self, redis_server: RedisServer, use: str):
        """The control: without any one of the commands something fails, and says what is missing."""
        commands = [rule for rule in RULES[use] if rule.startswith("+")]
        spare = []

        for command in commands:
            # For a script that the server has forgotten, for wake-ups (which are hints), and for heartbeats.
            if command in {"+eval", "+publish", "+subscribe", "+unsubscribe", "+zmscore"}:
                continue

            redis_server.command("FLUSHALL")
            client = await user(redis_server, [rule for rule in RULES[use] if rule != command])

            try:
                await USES[use](client, redis_server)
            except WsError as error:
                assert "the documentation lists under 'Rights'" in str(error), command  # noqa: PT017 - in a loop
            else:
                spare.append(command)

        assert spare == []

    async def test_a_refused_heartbeat_is_seen(
        self, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
    ):
        """Without the right that only heartbeats need, a warning says what is missing."""
        redis_server.command("FLUSHALL")
        rules = [rule for rule in RULES["locks of all kinds"] if rule != "+zmscore"]

        async with await user(redis_server, rules) as client:
            first, second = (
                MutexLock(client, "k", 60, heartbeat=0.3),
                MutexLock(client, "k", 60, heartbeat=0.3),
            )

            async with first, second:
                assert await first.acquire()
                await second.acquire(0.5)

        assert "a heartbeat failed" in caplog.text


class TestWithoutChannels:
    """The default rights of a new user: no channel."""

    async def test_a_release_is_done(self, any_redis: RedisServer):
        """A release with a waiter elsewhere releases, and the waiter has the lock after its next look."""
        rules = [rule for rule in RULES["locks of all kinds"] if not rule.startswith("&")]
        await lock_in_every_way(await user(any_redis, rules), any_redis)

    async def test_without_pubsub_at_all(self, any_redis: RedisServer):
        """Nor does it need the commands."""
        rules = [
            rule
            for rule in RULES["locks of all kinds"]
            if rule not in {"&wsl:hub:*", "+publish", "+subscribe", "+unsubscribe"}
        ]
        await lock_in_every_way(await user(any_redis, rules), any_redis)
