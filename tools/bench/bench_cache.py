"""Caches against cashews and aiocache: hits in memory and on Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiocache
import cashews
from aiocache.serializers import JsonSerializer

from tools.bench.harness import Candidate, Case, Suite, Target, main
from tools.servers import RedisServer
from ws_pool.cache import ShareCache
from ws_pool.redis import RedisPool

ABOUT = """\
A hit: a call of a cached coroutine function with one argument, whose result, a small dictionary, is
there. On Redis all use JSON where they can (cashews uses its own pickle) and their own ways to Redis:
ours a `RedisPool`, theirs redis-py's pool. "50 callers" are tasks with 50 different keys. "tracked" is ours
over `RedisPool(cache=1000)`: replies stay in the process until the server reports a change."""

VALUE = {"name": "lamp", "price": 1999, "stock": 7}


async def value(number: int) -> dict[str, object]:
    """Compute."""
    return {**VALUE, "number": number}


class Subjects:
    """One cached function of each kind, in memory and on Redis."""

    def __init__(self) -> None:
        self._server = RedisServer()
        self._opened = False
        self.local: dict[str, Callable[[int], Awaitable[object]]] = {}
        self.remote: dict[str, Callable[[int], Awaitable[object]]] = {}

    async def open(self) -> None:
        """Make the functions, once."""
        if self._opened:
            return

        self._opened = True
        self._server.start()
        self._pool = RedisPool(url=self._server.url)
        await self._pool.start()
        self.local["ws-pool"] = ShareCache("local", ttl=600)(value)
        self.remote["ws-pool"] = ShareCache("remote", ttl=600, redis=self._pool, redis_timeout=5)(value)
        self._tracking = RedisPool(url=self._server.url, cache=1000)
        await self._tracking.start()
        self.remote["tracked"] = ShareCache("remote", ttl=600, redis=self._tracking, redis_timeout=5)(value)
        memory, redis = cashews.Cache(), cashews.Cache()
        memory.setup("mem://")
        redis.setup(self._server.url, client_side=False)
        self._cashews = (memory, redis)
        self.local["cashews"] = memory(ttl=600, key="v:{number}")(value)
        self.remote["cashews"] = redis(ttl=600, key="v:{number}")(value)
        self.local["aiocache"] = aiocache.cached(ttl=600)(value)
        self.remote["aiocache"] = aiocache.cached(
            ttl=600,
            cache=aiocache.Cache.REDIS,
            endpoint=self._server.host,
            port=self._server.port,
            serializer=JsonSerializer(),
        )(value)

    async def close(self) -> None:
        """Stop, once."""
        if self._opened:
            self._opened = False
            await self._pool.close()
            await self._tracking.close()

            for cache in self._cashews:
                await cache.close()

            await self.remote["aiocache"].cache.close()  # type: ignore[attr-defined]
            self._server.stop()

    def hits(self, where: str, name: str, callers: int, calls: int) -> Callable[[], Awaitable[None]]:
        """Make a round of hits."""

        async def caller(function: Callable[[int], Awaitable[Any]], number: int) -> None:
            for _ in range(calls // callers):
                await function(number)

        async def run() -> None:
            function = getattr(self, where)[name]
            await asyncio.gather(*(caller(function, number) for number in range(callers)))

        return run


def suite(quick: bool) -> Suite:
    """Build the suite."""
    subjects = Subjects()
    cases = []

    for title, where, callers, calls, least, tracked in (
        ("hit in memory", "local", 1, 5_000, 1, None),
        ("hit on Redis, 1 caller", "remote", 1, 500, 2, 5),
        ("hit on Redis, 50 callers", "remote", 50, 2_000, 4, None),
    ):
        targets = [Target("ws-pool", peer=peer, at_least=least) for peer in ("cashews", "aiocache")]

        if tracked is not None:
            targets.append(Target("tracked", peer="aiocache", at_least=tracked))

        names = ("ws-pool", *(("tracked",) if where == "remote" else ()), "cashews", "aiocache")
        amount = calls // 5 if quick else calls
        cases.append(
            Case(
                title,
                operations=amount,
                candidates=tuple(
                    Candidate(
                        name,
                        run=subjects.hits(where, name, callers, amount),
                        setup=subjects.open,
                        teardown=subjects.close,
                    )
                    for name in names
                ),
                targets=targets,
                rounds=5 if quick else 15,
            )
        )

    return Suite(
        name="cache",
        title="Caches",
        packages=("ws-pool", "cashews", "aiocache", "redis"),
        about=ABOUT,
        cases=tuple(cases),
    )


if __name__ == "__main__":
    main(suite)
