"""Caches for functions, bounded mappings, and health checkers."""

import asyncio
import time

from ._setup import behaviour, with_redis, with_users


@behaviour
async def share_cache_runs_once():
    """Concurrent equal calls run once, and the result is kept in Redis."""
    from wintersweet.asyncs.cache import ShareCache

    await with_redis()
    calls = []

    @ShareCache("legacy-shared", ttl=60)
    async def double(number):
        calls.append(number)
        await asyncio.sleep(0.05)
        return number * 2

    together = await asyncio.gather(*(double(21) for _ in range(5)))
    after = await double(21)
    return [together, after, calls]


@behaviour
async def share_cache_bare():
    """`ShareCache()` without a tag uses the function's name."""
    from wintersweet.asyncs.cache import ShareCache

    await with_redis()
    calls = []

    @ShareCache()
    async def work(a, b=2):
        calls.append(a)
        return [a, b]

    return [await work(1), await work(1), await work(1, b=3), calls, work.__name__]


@behaviour
async def share_cache_without_redis():
    """`use_redis=False` shares concurrent calls and keeps nothing."""
    from wintersweet.asyncs.cache import ShareCache

    calls = []

    @ShareCache(use_redis=False)
    async def work(number):
        calls.append(number)
        await asyncio.sleep(0.05)
        return {"number": number}

    together = await asyncio.gather(work(1), work(1), work(2))
    again = await work(1)
    return [together, again, calls]


@behaviour
async def share_cache_copies():
    """Followers of a call get copies: changing one changes no other."""
    from wintersweet.asyncs.cache import ShareCache

    @ShareCache(use_redis=False)
    async def work():
        await asyncio.sleep(0.05)
        return {"list": []}

    first, second = await asyncio.gather(work(), work())
    first["list"].append(1)
    return second


@behaviour
async def cache_wrap_keeps():
    """`CacheWrap(maxsize, ttl)` keeps results in the process."""
    from wintersweet.asyncs.cache import CacheWrap

    calls = []

    @CacheWrap(maxsize=10, ttl=60)
    async def work(number, plus=0):
        calls.append(number)
        return number + plus

    return [await work(1), await work(1), await work(1, plus=2), calls, work.__name__]


@behaviour
async def cache_wrap_bare():
    """`CacheWrap()` has defaults."""
    from wintersweet.asyncs.cache import CacheWrap

    calls = []

    @CacheWrap()
    async def work(number):
        calls.append(number)
        return number

    return [await work(1), await work(1), await work(2), calls]


@behaviour
def lru_put_get_and_list():
    """`LRUCache(maximum, ttl)`: `put`, `get`, `top`, `list`; the least recently used goes."""
    from wintersweet.utils.cache import LRUCache

    cache = LRUCache(2, 3600)
    cache.put("a", 1)
    cache.put("b", 2)
    got = cache.get("a")
    cache.put("c", 3)
    return [got, cache.get("b"), cache.top(), [list(pair) for pair in cache.list()]]


@behaviour
def lru_by_keyword():
    """`maximum=` and `ttl=`; an expired entry is None."""
    from wintersweet.utils.cache import LRUCache

    cache = LRUCache(maximum=10, ttl=0.05)
    cache.put(key="a", val=1)
    before = cache.get(key="a")
    time.sleep(0.1)
    return [before, cache.get("a"), cache.list()]


@behaviour
def lru_put_again():
    """`put` of a known key replaces its value and makes it the first."""
    from wintersweet.utils.cache import LRUCache

    cache = LRUCache()
    empty = cache.list()
    cache.put("a", 1)
    cache.put("b", 2)
    cache.put("a", 3)
    return [empty, cache.get("a"), [list(pair) for pair in cache.list()]]


@behaviour
async def health_checker_checks():
    """`HealthChecker(interval, timeout)`: `initialize`, `health`, `release`."""
    from wintersweet.asyncs.pool import HealthChecker

    manager, _ = await with_users()
    checker = HealthChecker(interval=1, timeout=5)
    before = checker.health
    await checker.initialize()
    during = checker.health
    checker.release()
    return [before, during]


@behaviour
async def health_checker_with_own_checks():
    """A subclass overrides `check_list`."""
    from wintersweet.asyncs.pool import HealthChecker

    class Checker(HealthChecker):
        def check_list(self):
            return [self.broken()]

        async def broken(self):
            return False

    checker = Checker(1, 5)
    await checker.initialize()
    found = checker.health
    checker.release()
    return found


@behaviour
async def process_health_checker_checks():
    """`ProcessHealthChecker(process_num, interval, timeout, ntp)` of one process."""
    from wintersweet.asyncs.pool import ProcessHealthChecker

    checker = ProcessHealthChecker(process_num=1, interval=1, timeout=5, ntp=None)
    before = checker.health
    await checker.initialize()
    during = checker.health
    close = abs(checker.timestamp - time.time()) < 2
    checker.release()
    return [before, during, close]


# Mongo ------------------------------------------------------------------------------------------


@behaviour
def mongo_convert_id():
    """`convert_mongo_id` of the manager makes an ObjectId of a text."""
    from wintersweet.asyncs.pool.mongo import mongo_pool_manager

    return str(mongo_pool_manager.convert_mongo_id("507f1f77bcf86cd799439011"))
