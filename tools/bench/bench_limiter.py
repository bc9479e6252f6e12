"""Rate limiters: ws-redislock against limits and throttled-py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter, SlidingWindowCounterRateLimiter
from redis.asyncio import Redis
from throttled.asyncio import RateLimiterType, RedisStore, Throttled, per_min

from tools.bench.harness import Candidate, Case, Suite, Target, main
from tools.servers import RedisServer
from ws_pool.redis import RedisPool
from ws_redislock import FrequencyLimiter, SlidingWindowLimiter, TokenBucketLimiter

CALLERS = 50
LIMIT = 100_000
ABOUT = """\
One process and one server; 50 tasks hit 50 keys, each one hit after the other, all within the limit.
limits runs on redis-py (`implementation="redispy"`), throttled-py on its own RedisStore. Compared is
what comes closest: a window in buckets with a window of two weighted counters, a token bucket with a
token bucket. An exact log is shown by itself: it stores every hit."""

Hit = Callable[[str], Coroutine[Any, Any, object]]


class Subject:
    """A limiter under test."""

    def __init__(self, server: RedisServer, make: Callable[[RedisServer], Coroutine[Any, Any, Hit]]) -> None:
        self._server = server
        self._make = make

    async def open(self) -> None:
        """Make the limiter and connect it."""
        self._server.start()
        self._hit = await self._make(self._server)
        await self._hit("warm")

    async def run(self, hits: int) -> None:
        """Hit."""

        async def work(number: int) -> None:
            for _ in range(hits):
                await self._hit(f"user:{number}")

        await asyncio.gather(*(work(number) for number in range(CALLERS)))


async def pool_of(server: RedisServer) -> RedisPool:
    """Start a pool; the program's end closes it."""
    pool = RedisPool(url=server.url)
    await pool.start()
    return pool


async def frequency(server: RedisServer) -> Hit:
    """Ours, in buckets."""
    return FrequencyLimiter(await pool_of(server), 60, LIMIT).hit


async def frequency_plain(server: RedisServer) -> Hit:
    """Ours, in buckets, on a plain client."""
    return FrequencyLimiter(Redis.from_url(server.url), 60, LIMIT).hit


async def bucket(server: RedisServer) -> Hit:
    """Ours, a token bucket."""
    return TokenBucketLimiter(await pool_of(server), LIMIT / 60, LIMIT).hit


async def sliding(server: RedisServer) -> Hit:
    """Ours, the log."""
    return SlidingWindowLimiter(await pool_of(server), 60, LIMIT).hit


def limits_by(strategy: Callable[[Any], Any]) -> Callable[[RedisServer], Coroutine[Any, Any, Hit]]:
    """Make a limiter of limits."""

    async def make(server: RedisServer) -> Hit:
        storage = RedisStorage(f"async+{server.url}", implementation="redispy", max_connections=100)
        limiter = strategy(storage)
        item = RateLimitItemPerMinute(LIMIT)

        async def hit(key: str) -> object:
            return await limiter.hit(item, key)

        return hit

    return make


def throttled_by(kind: RateLimiterType) -> Callable[[RedisServer], Coroutine[Any, Any, Hit]]:
    """Make a limiter of throttled-py."""

    async def make(server: RedisServer) -> Hit:
        store = RedisStore(server=server.url, options={"POOL_KWARGS": {"max_connections": 100}})
        limiter = Throttled(using=kind.value, quota=per_min(LIMIT, burst=LIMIT), store=store)
        hit: Hit = limiter.limit
        return hit

    return make


def suite(quick: bool) -> Suite:
    """Describe the benchmark."""
    server = RedisServer()
    hits = 10 if quick else 40

    def candidate(name: str, make: Callable[[RedisServer], Coroutine[Any, Any, Hit]]) -> Candidate:
        subject = Subject(server, make)
        return Candidate(name, run=lambda: subject.run(hits), setup=subject.open, prepare=None)

    return Suite(
        name="limiter",
        title="Rate limiters",
        about=ABOUT,
        packages=("ws-redislock", "ws-pool", "redis", "hiredis", "limits", "throttled-py"),
        cases=(
            Case(
                "hit, 50 callers, window",
                candidates=(
                    candidate("FrequencyLimiter, RedisPool", frequency),
                    candidate("FrequencyLimiter, plain client", frequency_plain),
                    candidate("SlidingWindowLimiter, RedisPool", sliding),
                    candidate("limits, sliding window counter", limits_by(SlidingWindowCounterRateLimiter)),
                    candidate("limits, moving window", limits_by(MovingWindowRateLimiter)),
                    candidate("throttled-py, sliding window", throttled_by(RateLimiterType.SLIDING_WINDOW)),
                ),
                operations=CALLERS * hits,
                targets=(
                    Target("FrequencyLimiter, RedisPool", peer="limits, sliding window counter", at_least=5),
                    Target("FrequencyLimiter, RedisPool", peer="throttled-py, sliding window", at_least=5),
                ),
            ),
            Case(
                "hit, 50 callers, token bucket",
                candidates=(
                    candidate("TokenBucketLimiter, RedisPool", bucket),
                    candidate("throttled-py, token bucket", throttled_by(RateLimiterType.TOKEN_BUCKET)),
                    candidate("throttled-py, GCRA", throttled_by(RateLimiterType.GCRA)),
                ),
                operations=CALLERS * hits,
                targets=(
                    Target("TokenBucketLimiter, RedisPool", peer="throttled-py, token bucket", at_least=5),
                    Target("TokenBucketLimiter, RedisPool", peer="throttled-py, GCRA", at_least=5),
                ),
            ),
        ),
    )


if __name__ == "__main__":
    main(suite)
