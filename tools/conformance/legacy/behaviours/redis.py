"""Redis clients, locks, limiters and the event bus."""

import asyncio

from ._setup import behaviour, with_redis


@behaviour
async def redis_get_and_set():
    """Text goes in and comes out, a missing key is None."""
    manager = await with_redis()
    async with manager.get_client() as client:
        await client.set("k", "v")
        return [
            await client.get("k"),
            await client.get("none"),
            await client.delete("k"),
            await client.exists("k"),
        ]


@behaviour
async def redis_set_with_expire():
    """`set(key, value, expire=10)`."""
    manager = await with_redis()
    async with manager.get_client() as client:
        await client.set("k", "v", expire=100)
        return 0 < await client.ttl("k") <= 100


@behaviour
async def redis_set_if_not_exist():
    """`set(..., exist=client.SET_IF_NOT_EXIST)`."""
    manager = await with_redis()
    async with manager.get_client() as client:
        first = await client.set("k", "v", exist=client.SET_IF_NOT_EXIST)
        second = await client.set("k", "w", exist=client.SET_IF_NOT_EXIST)
        return [bool(first), bool(second), await client.get("k")]


@behaviour
async def redis_hashes():
    """`hmset_dict`, `hgetall`, `hset` with a field, `hget`, `hincrby`."""
    manager = await with_redis()
    async with manager.get_client() as client:
        await client.hmset_dict("h", {"a": "1", "b": "2"})
        await client.hset("h", "c", "3")
        await client.hincrby("h", "a", 5)
        return [await client.hgetall("h"), await client.hget("h", "c"), await client.hexists("h", "x")]


@behaviour
async def redis_lists_sets_and_counters():
    """Lists, sets, sorted sets and counters as everywhere."""
    manager = await with_redis()
    async with manager.get_client() as client:
        await client.rpush("l", "a")
        await client.rpush("l", "b")
        await client.sadd("s", "x")
        await client.zadd("z", 2, "two")
        await client.incr("n")
        await client.incrby("n", 4)
        await client.expire("n", 50)
        return [
            await client.lrange("l", 0, -1),
            await client.lpop("l"),
            await client.llen("l"),
            sorted(await client.smembers("s")),
            await client.zrange("z"),
            await client.get("n"),
        ]


@behaviour
async def redis_pipeline():
    """Commands are put into a pipeline without `await`, and `execute` returns their replies."""
    manager = await with_redis()
    async with manager.get_client() as client:
        pipeline = client.pipeline()
        pipeline.incrby("n", 3)
        pipeline.expire("n", 60)
        return [int(item) for item in await pipeline.execute()]


@behaviour
async def redis_eval():
    """`eval(script, [keys], [arguments])`."""
    manager = await with_redis()
    async with manager.get_client() as client:
        return await client.eval("return {KEYS[1], ARGV[1]}", ["k"], ["v"])


@behaviour
async def redis_execute():
    """`execute(name, ...)` runs any command."""
    manager = await with_redis()
    async with manager.get_client() as client:
        await client.execute("SET", "k", "v")
        return await client.execute("GET", "k")


@behaviour
async def redis_pool_properties():
    """A pool has its name and sizes, and takes and releases clients."""
    manager = await with_redis()
    pool = manager.get_pool("default")
    client = await pool.get_client(alone=True)
    await client.set("k", "v")
    value = await client.get("k")
    await pool.release(client)
    return [pool.name, pool.minsize, pool.maxsize, pool.db, pool.closed, value]


@behaviour
async def redis_pool_context_manager_client():
    """`pool.get_context_manager_client` is a block with a client."""
    manager = await with_redis()
    async with manager.get_pool().get_context_manager_client(alone=True) as client:
        return bool(await client.ping())


@behaviour
async def redis_pool_health():
    """`pool.health()` and `check_health`."""
    manager = await with_redis()
    return [bool(await manager.get_pool().health()), await manager.check_health()]


@behaviour
async def redis_pool_status_names_the_pool():
    """`pool_status` is a text that names pool and database."""
    manager = await with_redis()
    status = manager.pool_status(pool_name="default")
    return [isinstance(status, str), "[default]" in status, "db:0" in status]


@behaviour
async def redis_close_is_a_plain_function():
    """`manager.close()` closes without being awaited."""
    manager = await with_redis()
    pool = manager.get_pool()
    manager.close()
    await asyncio.sleep(0.2)
    return pool.closed


@behaviour
async def lock_is_taken_and_released():
    """A lock as a block: `acquire`, `locked`, and free at the end."""
    manager = await with_redis()
    async with manager.allocate_lock("job") as lock:
        taken = await lock.acquire()
        held = lock.locked
        async with manager.allocate_lock("job") as other:
            refused = await other.acquire()
            exists = await other.exists()
    async with manager.allocate_lock("job") as third:
        return [taken, held, refused, exists, await third.exists(), await third.acquire()]


@behaviour
async def lock_by_keyword():
    """`allocate_lock(key=, expire=, pool_name=)`."""
    manager = await with_redis()
    lock = manager.allocate_lock(key="job", expire=30, pool_name="default")
    taken = await lock.acquire(timeout=1)
    renewed = await lock.renew()
    await lock.release()
    return [taken, renewed, lock.locked]


@behaviour
async def lock_waits():
    """`acquire(timeout)` waits for the holder, `wait` for its end."""
    manager = await with_redis()
    first = manager.allocate_lock("job", 30)
    await first.acquire()

    async def release_later():
        await asyncio.sleep(0.2)
        await first.release()

    task = asyncio.ensure_future(release_later())
    second = manager.allocate_lock("job", 30)
    taken = await second.acquire(timeout=5)
    await task
    await second.release()
    third = manager.allocate_lock("job", 30)
    free = await third.wait(timeout=1)
    await third.release()
    return [taken, free]


@behaviour
async def lock_wait_ends():
    """`wait(timeout)` of a lock that stays is False."""
    manager = await with_redis()
    first = manager.allocate_lock("job", 30)
    await first.acquire()
    second = manager.allocate_lock("job", 30)
    free = await second.wait(timeout=0.2)
    await second.release()
    await first.release()
    return free


@behaviour
async def lock_on_a_pool():
    """`MutexLock(redis_pool, key, expire=)` on a pool of the manager, also by keyword."""
    from wintersweet.asyncs.pool.redis import MutexLock

    manager = await with_redis()
    lock = MutexLock(redis_pool=manager.get_pool(), key="job", expire=60)
    async with lock:
        return [await lock.acquire(), str(lock), repr(lock)]


@behaviour
async def lock_with_a_short_lease():
    """`expire` of 3 seconds and less is refused."""
    manager = await with_redis()
    try:
        manager.allocate_lock("job", 3)
    except Exception:
        return "refused"
    return "taken"


@behaviour
async def limiter_limits():
    """`is_limited` is False up to the limit."""
    manager = await with_redis()
    limiter = manager.allocate_limiter("default", 1000, 3)
    await asyncio.sleep(0.1)
    found = [await limiter.is_limited("ann") for _ in range(5)]
    other = await limiter.is_limited("bob")
    await limiter.release()
    return [found, other]


@behaviour
async def limiter_by_keyword():
    """`allocate_limiter(pool_name=, granularity=, limit=, conn_num=, alone=, ntp=)`, `incr_num`."""
    manager = await with_redis()
    limiter = manager.allocate_limiter(
        pool_name="default", granularity=1000, limit=10, conn_num=2, alone=True, ntp=None
    )
    await asyncio.sleep(0.1)
    found = [await limiter.is_limited("ann", incr_num=6), await limiter.is_limited("ann", 6)]
    await limiter.release()
    return found


@behaviour
async def limiter_counts():
    """`incrby` returns the count of the window."""
    from wintersweet.asyncs.pool.redis import FrequencyLimiter

    manager = await with_redis()
    limiter = FrequencyLimiter(redis_pool=manager.get_pool(), granularity=1000, limit=10)
    await asyncio.sleep(0.1)
    found = [
        await limiter.incrby("ann"),
        await limiter.incrby("ann", 4),
        await limiter.incrby("bob", incr_num=2),
    ]
    await limiter.release()
    return found


@behaviour
async def bus_delivers():
    """A bus starts by itself and hands positional and keyword arguments to its listeners."""
    manager = await with_redis()
    bus = manager.allocate_event_bus("default", "news")
    seen = []

    async def listen(*args, **kwargs):
        seen.append([list(args), kwargs])

    bus.add_listener("tag", listen)
    await asyncio.sleep(0.5)
    await bus.publish("tag", 1, "two", three=[3])
    await bus.publish("other", 2)
    await asyncio.sleep(0.5)
    return seen


@behaviour
async def bus_by_keyword():
    """One bus a channel: `allocate_event_bus(pool_name=, channel_name=)`."""
    manager = await with_redis()
    bus = manager.allocate_event_bus(pool_name="default", channel_name="news")
    again = manager.allocate_event_bus("default", "news")
    other = manager.allocate_event_bus(channel_name="sport")
    return [bus is again, bus is other]


@behaviour
async def bus_on_a_pool():
    """`RedisEventBus(redis_pool, channel_name)` made alone; several listeners of a tag, `callback=`."""
    from wintersweet.asyncs.pool.redis import RedisEventBus

    manager = await with_redis()
    bus = RedisEventBus(redis_pool=manager.get_pool(), channel_name="news")
    seen = []

    async def first(value):
        seen.append(["first", value])

    async def second(value):
        seen.append(["second", value])

    bus.add_listener(tag="tag", callback=first)
    bus.add_listener("tag", second)
    await asyncio.sleep(0.5)
    await bus.publish("tag", 5)
    await asyncio.sleep(0.5)
    return sorted(seen)


@behaviour
async def bus_refuses_plain_functions():
    """A listener must be a coroutine function."""
    manager = await with_redis()
    bus = manager.allocate_event_bus()
    try:
        bus.add_listener("tag", len)
    except Exception:
        return "refused"
    return "taken"
