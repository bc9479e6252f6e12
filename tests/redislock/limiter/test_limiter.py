"""The limiters over real servers: hits, failures, and managers of pools."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.redislock._helpers import child, says
from tests.servers import StartServer
from tools.servers import RedisServer
from ws_redislock import FrequencyLimiter, RunClaims, SlidingWindowLimiter, TokenBucketLimiter
from ws_redislock.errors import ConfigError, UnavailableError, UsageError
from ws_redislock.limiter import OnError, RateLimiter

POLICIES: tuple[tuple[OnError, bool], ...] = (("open", True), ("closed", False))


def limiters(redis: Redis, rate: float = 0.05) -> list[RateLimiter]:
    """Return one limiter of each kind, with room for three hits."""
    return [
        FrequencyLimiter(redis, 60, 3),
        SlidingWindowLimiter(redis, 60, 3),
        TokenBucketLimiter(redis, rate, 3),
    ]


class TestHits:
    """Hits over a real connection."""

    async def test_counts_to_the_limit(self, redis: Redis):
        """Three fit, the fourth is refused and learns when to come back; nothing has no TTL."""
        for limiter in limiters(redis):
            verdicts = [await limiter.hit("user:7") for _ in range(4)]
            assert [verdict.allowed for verdict in verdicts] == [True, True, True, False]
            assert [verdict.remaining for verdict in verdicts] == [2, 1, 0, 0]
            assert verdicts[2].retry_after == 0.0
            assert 0 < verdicts[3].retry_after <= verdicts[3].reset_after <= 64

        assert {await redis.pttl(key) > 0 for key in await redis.keys("*")} == {True}

    async def test_is_limited(self, redis: Redis):
        """The original's question, with its weight."""
        limiter = FrequencyLimiter(redis, 60, 3)
        assert not await limiter.is_limited("k", 2)
        assert await limiter.is_limited("k", 2)
        assert not await limiter.is_limited("k")

    @pytest.mark.parametrize("kind", [FrequencyLimiter, SlidingWindowLimiter])
    async def test_a_window_of_years(
        self, redis: Redis, kind: type[FrequencyLimiter | SlidingWindowLimiter]
    ) -> None:
        """A window may be as long as the error says; it is refused beyond that."""
        limiter = kind(redis, 100 * 365 * 86_400, 2)
        assert [(await limiter.hit("k")).allowed for _ in range(3)] == [True, True, False]

        with pytest.raises(ConfigError, match="between 16 µs and 140 years"):
            kind(redis, 200 * 365 * 86_400, 2)

    async def allowed(self, url: str, kind: str, cost: int, wrong_by: float) -> list[list[str]]:
        """Return which of two hits each limiter allows to a process whose clocks are wrong."""
        async with child("limit", url, kind, cost, wrong_by) as process:
            return [(await says(process, "allowed"))[1:] for _ in range(3 if kind == "real" else 1)]

    @pytest.mark.parametrize("wrong_by", [-3600.0, 3600.0])
    async def test_the_clients_clock_does_not_matter(
        self, any_redis: RedisServer, redis: Redis, wrong_by: float
    ):
        """A process whose clocks are wrong by an hour counts in the same windows as all others."""
        for limiter in limiters(redis, rate=0.001):  # no token comes back until the process has begun
            await limiter.hit("k", 2)

        assert await self.allowed(any_redis.url, "real", 1, wrong_by) == [["1", "0"]] * 3

    @pytest.mark.parametrize("wrong_by", [-3600.0, 3600.0])
    async def test_a_limiter_on_the_clients_clock_is_wrong(
        self, any_redis: RedisServer, redis: Redis, wrong_by: float
    ):
        """The control: given the time by its clients, the same script allows too much."""
        assert await redis.dbsize() == 0
        assert await self.allowed(any_redis.url, "twin", 2, 0.0) == [["1", "0"]]
        assert await self.allowed(any_redis.url, "twin", 1, wrong_by) == [["1", "1"]]

    async def test_many_at_once_count_as_one_by_one(self, redis: Redis):
        """Hits of many tasks go together, and each is counted; the keys do not mix."""
        for limiter in limiters(redis):
            await redis.script_flush()
            verdicts = await asyncio.gather(*(limiter.hit(f"k{n % 40}") for n in range(200)))
            allowed = Counter(n % 40 for n, verdict in enumerate(verdicts) if verdict.allowed)
            assert set(allowed.values()) == {3}
            assert len(allowed) == 40

    async def test_peek_and_reset(self, redis: Redis):
        """LockStatus counts nothing; a reset forgets all."""
        for limiter in limiters(redis):
            await limiter.hit("k", 3)
            peeked = await limiter.peek("k")
            assert (peeked.allowed, peeked.remaining) == (False, 0)
            await limiter.reset("k")
            assert (await limiter.peek("k")).remaining == 3

    @pytest.mark.parametrize("used", [1, 3])
    @pytest.mark.parametrize("then", ["hit", "peek"])
    async def test_repairs_a_missing_ttl(self, redis: Redis, used: int, then: str):
        """A key that somebody made persistent gets its TTL back: by a hit, allowed or not, and by a look."""
        for limiter in limiters(redis):
            await limiter.hit("k", used)

        for key in await redis.keys("*"):
            await redis.persist(key)

        for limiter in limiters(redis):
            verdict = await (limiter.hit("k") if then == "hit" else limiter.peek("k"))
            assert verdict.allowed == (used == 1)

        ttls = [await redis.pttl(key) for key in await redis.keys("*")]
        assert len(ttls) == 3
        assert min(ttls) > 0

    async def test_replaces_rubbish(self, redis: Redis):
        """A key of a foreign type does not break the limiter for ever."""
        for limiter in limiters(redis):
            await redis.sadd(limiter._key("k"), "rubbish")
            assert (await limiter.hit("k")).allowed

    async def test_replaces_rubbish_of_its_own_type(self, redis: Redis):
        """Nor does a key whose content it cannot read."""
        one, two, three = limiters(redis)
        await redis.hset(one._key("k"), mapping={"a": "b", str(10**6): "many"})
        await redis.rpush(two._key("k"), "1 1", "7")
        await redis.set(three._key("k"), "full")

        for limiter in (one, two, three):
            assert (await limiter.hit("k")).remaining == 2

    async def test_keys_are_apart(self, redis: Redis):
        """Keys, namespaces and limits do not share counts."""
        one = FrequencyLimiter(redis, 60, 1)
        assert not await one.is_limited("a")
        assert not await one.is_limited("b")
        assert not await FrequencyLimiter(redis, 60, 1, namespace="login").is_limited("a")
        assert not await FrequencyLimiter(redis, 60, 2).is_limited("a")
        assert await one.is_limited("a")

    async def test_denies_from_memory(self, redis: Redis):
        """With a cache, a denied key is denied without Redis until its time has come."""
        now = 100.0
        limiter = TokenBucketLimiter(redis, 0.01, 1, deny_cache=1, clock=lambda: now)
        await limiter.hit("k")
        denied = await limiter.hit("k")
        await redis.flushall()
        now += 10.0
        again = await limiter.hit("k")
        assert not again.allowed
        assert again.retry_after == pytest.approx(denied.retry_after - 10.0)
        now += denied.retry_after
        assert (await limiter.hit("k")).allowed
        await limiter.hit("k")
        await limiter.hit("other")
        await limiter.hit("other")
        assert list(limiter._denied) == [("other", 1)]

    async def test_denies_each_cost_from_memory(self, redis: Redis):
        """What costs more has to wait longer, and its verdict says so; a reset forgets all costs."""
        limiter = TokenBucketLimiter(redis, 0.01, 3, deny_cache=10, clock=lambda: 100.0)
        await limiter.hit("k", 3)
        waits = [(await limiter.hit("k", cost)).retry_after for cost in (1, 2, 1, 2)]
        assert waits == pytest.approx([100, 200, 100, 200], abs=1)
        assert waits[:2] == pytest.approx(waits[2:])
        await limiter.reset("k")
        assert (await limiter.hit("k", 2)).allowed


class TestErrors:
    """When Redis does not answer, and wrong use."""

    async def test_open_closed_raise(self):
        """The limiter's policy decides, and says so."""
        nowhere = "redis://127.0.0.1:1/0"

        async with FrequencyLimiter(nowhere, 60, 3, on_error="open", timeout=0.05) as limiter:
            verdict = await limiter.hit("k")
            assert verdict.allowed
            assert verdict.degraded
            assert await limiter.peek("k") == verdict

        async with FrequencyLimiter(nowhere, 60, 3, on_error="closed", timeout=0.05) as limiter:
            assert await limiter.is_limited("k")

        async with FrequencyLimiter(nowhere, 60, 3, timeout=0.05) as limiter:
            with pytest.raises(UnavailableError, match="limiter key 'k'"):
                await limiter.hit("k")

            with pytest.raises(UnavailableError, match="DEL"):
                await limiter.reset("k")

    @pytest.mark.parametrize("many", [1, 20])
    async def test_a_server_that_refuses(self, start_server: StartServer, many: int):
        """A server that takes no writes does not answer either, whether one hits or many do."""
        server = start_server(RedisServer, config={"maxmemory": 1})

        async with Redis.from_url(server.url) as client:
            for policy, allowed in POLICIES:
                for kind in (FrequencyLimiter, SlidingWindowLimiter):
                    limiter = kind(client, 60, 3, on_error=policy)
                    verdicts = await asyncio.gather(*(limiter.hit("k") for _ in range(many)))
                    assert {(v.allowed, v.degraded) for v in verdicts} == {(allowed, True)}

            with pytest.raises(UnavailableError, match="maxmemory"):
                await TokenBucketLimiter(client, 1, 3).hit("k")

    async def test_a_cost_that_never_fits(self, redis7: Redis):
        """More than the limit at once can never be allowed: an error, not a denial for ever."""
        for limiter in limiters(redis7):
            with pytest.raises(UsageError, match="can never be allowed"):
                await limiter.hit("k", 4)

    @pytest.mark.parametrize("cost", [0, -1, 1.5, True])
    async def test_a_cost_that_is_none(self, redis7: Redis, cost: object):
        """The cost is a whole number from 1."""
        with pytest.raises(ConfigError, match="cost must be"):
            await FrequencyLimiter(redis7, 60, 3).hit("k", cost)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("kind", "args"),
        [
            (FrequencyLimiter, (0, 3)),
            (FrequencyLimiter, (60, 0)),
            (FrequencyLimiter, (1e-9, 3)),
            (SlidingWindowLimiter, (float("nan"), 3)),
            (SlidingWindowLimiter, (60, 1.5)),
            (TokenBucketLimiter, (0, 3)),
            (TokenBucketLimiter, (1, 0)),
            (TokenBucketLimiter, (1e-9, 3)),
            (TokenBucketLimiter, (0.333333333333, 10**9)),
        ],
    )
    def test_limits_that_cannot_be(self, kind: Callable[..., RateLimiter], args: tuple[object, ...]):
        """Numbers that cannot work are refused when the limiter is made."""
        with pytest.raises(ConfigError):
            kind("redis://localhost:6379/0", *args)

    @pytest.mark.parametrize(
        "options",
        [
            {"on_error": "maybe"},
            {"timeout": 0},
            {"deny_cache": -1},
            {"namespace": 7},
            {"on_error": []},
            {"namespace": []},
        ],
    )
    def test_options_that_cannot_be(self, options: dict[str, object]):
        """So are wrong options."""
        with pytest.raises(ConfigError):
            FrequencyLimiter("redis://localhost:6379/0", 60, 3, **options)  # type: ignore[arg-type]


class Restarted:
    """A manager whose pool is another one after each start; as much of ws-pool's as is used."""

    def __init__(self) -> None:
        self.pool = SimpleNamespace(redis=None)

    def get_pool(self, name: str = "default") -> Any:
        """Return the present pool."""
        return self.pool


class TestManagers:
    """Limiters and claims of a module, over a manager whose pools are started anew."""

    def test_in_one_event_loop_after_another(self, redis_server: RedisServer) -> None:
        """Each test of an application starts the pools in its own loop: the client is looked up again."""
        manager = Restarted()
        limiter = FrequencyLimiter(manager, 600, 3, namespace="restarted", deny_cache=10)
        claims = RunClaims(manager, namespace="restarted")

        async def live() -> tuple[bool, bool]:
            async with Redis.from_url(redis_server.url) as client:
                manager.pool = SimpleNamespace(redis=client)
                return (await limiter.hit("key")).allowed, await claims.claim("run", 600)

        assert [asyncio.run(live()) for _ in range(4)] == [
            (True, True),
            (True, False),
            (True, False),
            (False, False),
        ]

    async def test_another_pool_in_the_same_loop(self, start_server: StartServer) -> None:
        """What was known of the first server, such as who is denied there, does not hold on the second."""
        manager = Restarted()
        limiter = FrequencyLimiter(manager, 600, 1, deny_cache=10)

        for _ in range(2):
            async with Redis.from_url(start_server(RedisServer).url) as client:
                manager.pool = SimpleNamespace(redis=client)
                assert [(await limiter.hit("key")).allowed for _ in range(3)] == [True, False, False]

    async def test_a_client_belongs_to_its_loop(self, redis_server: RedisServer) -> None:
        """A limiter on a client is refused in another event loop: it would hang there."""
        async with Redis.from_url(redis_server.url) as client:
            limiter = FrequencyLimiter(client, 600, 3, namespace="one loop")
            await limiter.hit("key")

            with pytest.raises(UsageError, match="belongs to another event loop"):
                await asyncio.to_thread(asyncio.run, limiter.hit("key"))
