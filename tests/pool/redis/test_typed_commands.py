"""Typed commands do what redis-py's do: the same replies and the same errors, on the same server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
import redis.asyncio
from redis.exceptions import RedisError

from tools.servers import RedisServer
from ws_pool.redis import RedisPool

Call = Callable[[Any], Awaitable[Any]]

STRINGS: list[Call] = [
    lambda r: r.set("s", "välue"),
    lambda r: r.get("s"),
    lambda r: r.get("absent"),
    lambda r: r.get(b"s"),
    lambda r: r.get(memoryview(b"s")),
    lambda r: r.set("s", b"\x00\x01", nx=True),
    lambda r: r.set("s", "new", xx=True, get=True),
    lambda r: r.set("s", 1.5, ex=100),
    lambda r: r.set("s", "x", px=timedelta(seconds=5)),
    lambda r: r.set("s", "x", keepttl=True),
    lambda r: r.set("s", "x", ex=1, px=1),
    lambda r: r.set("s", True),
    lambda r: r.set("s", None),
    lambda r: r.set("s", object()),
    lambda r: r.set("s", bytearray(b"bytes")),
    lambda r: r.set("s", memoryview(b"view")),
    lambda r: r.get("s"),
    lambda r: r.setnx("s", 1),
    lambda r: r.setex("e", 100, "v"),
    lambda r: r.psetex("e", 100_000, "v"),
    lambda r: r.setrange("s", 3, "xyz"),
    lambda r: r.getrange("s", 0, -1),
    lambda r: r.append("s", "tail"),
    lambda r: r.strlen("s"),
    lambda r: r.getdel("s"),
    lambda r: r.getex("e", persist=True),
    lambda r: r.getset("g", "1"),
    lambda r: r.getset("g", "2"),
    lambda r: r.incr("n"),
    lambda r: r.incrby("n", 5),
    lambda r: r.decr("n", 2),
    lambda r: r.incrbyfloat("f", 1.25),
    lambda r: r.incr("g2", "no number"),
    lambda r: r.mset({"m1": 1, "m2": b"two", "m3": 3.5}),
    lambda r: r.msetnx({"m1": 1, "m4": 4}),
    lambda r: r.mget("m1", "m2", "m3", "absent"),
    lambda r: r.mget(["m1", "m2"]),
    lambda r: r.mget([]),
    lambda r: r.lcs("m1", "m2", idx=True),
    lambda r: r.setbit("bits", 7, 1),
    lambda r: r.getbit("bits", 7),
    lambda r: r.bitcount("bits"),
    lambda r: r.bitpos("bits", 1),
    lambda r: r.bitop("NOT", "bits2", "bits"),
    lambda r: r.bitfield("bf").set("u8", 0, 255).get("u8", 0).incrby("u8", 0, 1).execute(),
]

KEYS: list[Call] = [
    lambda r: r.exists("m1", "m2", "absent"),
    lambda r: r.type("m1"),
    lambda r: r.expire("m1", 100),
    lambda r: r.expire("absent", 100),
    lambda r: r.expireat("m1", datetime(2100, 1, 1, tzinfo=UTC)),
    lambda r: r.pexpire("m1", 100_000),
    lambda r: r.persist("m1"),
    lambda r: r.ttl("m1"),
    lambda r: r.ttl("absent"),
    lambda r: r.pttl("m1"),
    lambda r: r.expiretime("m1"),
    lambda r: r.rename("m1", "m1b"),
    lambda r: r.rename("absent", "x"),
    lambda r: r.renamenx("m1b", "m2"),
    lambda r: r.copy("m2", "m2copy"),
    lambda r: r.touch("m2", "m3"),
    lambda r: r.unlink("m2copy"),
    lambda r: r.delete("m3", "absent"),
    lambda r: r.dump("m2"),
    lambda r: r.dump("absent"),
    lambda r: r.object("ENCODING", "m2"),
    lambda r: r.object("encoding", "absent"),
    lambda r: r.memory_usage("absent"),
    lambda r: r.dbsize(),
    lambda r: r.sort("absent"),
]

HASHES: list[Call] = [
    lambda r: r.hset("h", "f", "v"),
    lambda r: r.hset("h", mapping={"a": 1, "b": 2.5, b"c": b"\xc3\xa9"}),
    lambda r: r.hset("h", items=["k1", "v1", "k2", "v2"]),
    lambda r: r.hset("h"),
    lambda r: r.hsetnx("h", "f", "other"),
    lambda r: r.hget("h", "f"),
    lambda r: r.hget("h", "absent"),
    lambda r: r.hmget("h", ["f", "absent", "a"]),
    lambda r: r.hgetall("h"),
    lambda r: r.hgetall("absent"),
    lambda r: r.hkeys("h"),
    lambda r: r.hvals("h"),
    lambda r: r.hlen("h"),
    lambda r: r.hexists("h", "f"),
    lambda r: r.hexists("h", "absent"),
    lambda r: r.hstrlen("h", "f"),
    lambda r: r.hincrby("h", "n", 2),
    lambda r: r.hincrbyfloat("h", "x", 0.5),
    lambda r: r.hdel("h", "f", "absent"),
    lambda r: r.hscan("h"),
    lambda r: r.hrandfield("absent"),
    lambda r: r.hrandfield("h", 100, withvalues=True),
    lambda r: r.hget("s_is_string", "f"),
]

LISTS: list[Call] = [
    lambda r: r.rpush("l", "a", "b", "c", "b"),
    lambda r: r.lpush("l", 1, 2),
    lambda r: r.lpushx("absent", 1),
    lambda r: r.lrange("l", 0, -1),
    lambda r: r.llen("l"),
    lambda r: r.lindex("l", 0),
    lambda r: r.lindex("l", 100),
    lambda r: r.linsert("l", "BEFORE", "b", "x"),
    lambda r: r.lset("l", 0, "zero"),
    lambda r: r.lset("l", 100, "x"),
    lambda r: r.lpos("l", "b"),
    lambda r: r.lpos("l", "b", count=0),
    lambda r: r.lrem("l", 1, "b"),
    lambda r: r.ltrim("l", 0, 4),
    lambda r: r.lpop("l"),
    lambda r: r.lpop("l", 2),
    lambda r: r.rpop("absent"),
    lambda r: r.rpoplpush("l", "l2"),
    lambda r: r.lmove("l", "l2", "LEFT", "RIGHT"),
    lambda r: r.lmpop(1, "l2", direction="LEFT", count=2),
    lambda r: r.lmpop(1, "absent", direction="LEFT"),
    lambda r: r.rpush("numbers", 3, 1, 2),
    lambda r: r.sort("numbers", desc=True),
    lambda r: r.sort("numbers", get=["#", "absent_*"], groups=True),
    lambda r: r.blpop("numbers", timeout=1),
    lambda r: r.brpop(["absent", "numbers"], timeout=1),
    lambda r: r.blpop("absent", timeout=0.01),
    lambda r: r.blmove("numbers", "l3", 1, "LEFT", "LEFT"),
    lambda r: r.brpoplpush("l3", "l4", timeout=1),
    lambda r: r.blmpop(1, 1, "l4", direction="LEFT"),
]

SETS: list[Call] = [
    lambda r: r.sadd("set", "a", "b", "c"),
    lambda r: r.sadd("set2", "b", "c", "d"),
    lambda r: r.smembers("set"),
    lambda r: r.smembers("absent"),
    lambda r: r.scard("set"),
    lambda r: r.sismember("set", "a"),
    lambda r: r.smismember("set", ["a", "x"]),
    lambda r: r.sinter("set", "set2"),
    lambda r: r.sintercard(2, ["set", "set2"]),
    lambda r: r.sunion("set", "set2"),
    lambda r: r.sdiff("set", "set2"),
    lambda r: r.sdiffstore("set3", "set", "set2"),
    lambda r: r.smove("set", "set2", "a"),
    lambda r: r.srem("set", "b"),
    lambda r: r.spop("absent"),
    lambda r: r.spop("set3", 5),
    lambda r: r.srandmember("absent"),
    lambda r: r.sscan("set"),
]

SORTED_SETS: list[Call] = [
    lambda r: r.zadd("z", {"a": 1, "b": 2.5, "c": 3}),
    lambda r: r.zadd("z", {"a": 5}, nx=True),
    lambda r: r.zadd("z", {"a": 1.5}, ch=True),
    lambda r: r.zadd("z", {"a": 1}, incr=True),
    lambda r: r.zadd("z", {}),
    lambda r: r.zincrby("z", 2, "b"),
    lambda r: r.zcard("z"),
    lambda r: r.zcount("z", "-inf", "+inf"),
    lambda r: r.zscore("z", "a"),
    lambda r: r.zscore("z", "absent"),
    lambda r: r.zmscore("z", ["a", "absent"]),
    lambda r: r.zrank("z", "a"),
    lambda r: r.zrank("z", "absent"),
    lambda r: r.zrevrank("z", "a", withscore=True),
    lambda r: r.zrange("z", 0, -1),
    lambda r: r.zrange("z", 0, -1, withscores=True),
    lambda r: r.zrange("z", 0, -1, desc=True, withscores=True, score_cast_func=int),
    lambda r: r.zrevrange("z", 0, 1, withscores=True),
    lambda r: r.zrangebyscore("z", 0, 10, withscores=True, start=0, num=2),
    lambda r: r.zrevrangebyscore("z", "+inf", "-inf"),
    lambda r: r.zrangebylex("z", "-", "+"),
    lambda r: r.zlexcount("z", "-", "+"),
    lambda r: r.zrandmember("absent"),
    lambda r: r.zscan("z"),
    lambda r: r.zadd("z2", {"b": 1, "c": 1}),
    lambda r: r.zinter(["z", "z2"], withscores=True),
    lambda r: r.zunion(["z", "z2"], aggregate="MAX", withscores=True),
    lambda r: r.zdiff(["z", "z2"], withscores=True),
    lambda r: r.zunionstore("z3", {"z": 2, "z2": 1}),
    lambda r: r.zpopmin("z"),
    lambda r: r.zpopmax("z", 2),
    lambda r: r.zpopmin("absent"),
    lambda r: r.zmpop(1, ["z3"], min=True, count=2),
    lambda r: r.bzpopmin("z3", timeout=1),
    lambda r: r.bzpopmax("absent", timeout=0.01),
    lambda r: r.bzmpop(1, 1, ["z2"], min=True),
    lambda r: r.zremrangebyrank("z2", 0, -1),
    lambda r: r.zrem("z3", "a"),
]

STREAMS: list[Call] = [
    lambda r: r.xadd("x", {"a": 1, "b": b"2"}, id="1-1"),
    lambda r: r.xadd("x", {"a": 2}, id="2-1", maxlen=10, approximate=True),
    lambda r: r.xadd("x", {"a": 3}, id="1-1"),
    lambda r: r.xlen("x"),
    lambda r: r.xrange("x"),
    lambda r: r.xrevrange("x", count=1),
    lambda r: r.xread({"x": "0"}),
    lambda r: r.xread({"x": "0"}, count=1, block=10),
    lambda r: r.xread({"absent": "$"}, block=10),
    lambda r: r.xgroup_create("x", "g", id="0"),
    lambda r: r.xgroup_create("x", "g", id="0"),
    lambda r: r.xreadgroup("g", "c", {"x": ">"}, count=1),
    lambda r: r.xreadgroup("g", "c", {"x": ">"}, count=1, block=10),
    lambda r: r.xreadgroup("g", "c", {"x": ">"}),
    lambda r: r.xpending("x", "g"),
    lambda r: r.xack("x", "g", "1-1"),
    lambda r: r.xclaim("x", "g", "d", 0, ["2-1"], justid=True),
    lambda r: r.xclaim("x", "g", "d", 0, ["2-1"]),
    lambda r: r.xautoclaim("x", "g", "e", 0),
    lambda r: r.xinfo_groups("x"),
    lambda r: r.xinfo_stream("absent"),
    lambda r: r.xtrim("x", maxlen=1),
    lambda r: r.xdel("x", "2-1"),
    lambda r: r.xgroup_destroy("x", "g"),
]

OTHERS: list[Call] = [
    lambda r: r.pfadd("hll", "a", "b"),
    lambda r: r.pfcount("hll"),
    lambda r: r.pfmerge("hll2", "hll"),
    lambda r: r.geoadd("geo", (13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania")),
    lambda r: r.geodist("geo", "Palermo", "Catania", unit="km"),
    lambda r: r.geodist("geo", "Palermo", "absent"),
    lambda r: r.geopos("geo", "Palermo", "absent"),
    lambda r: r.geohash("geo", "Palermo"),
    lambda r: r.geosearch(
        "geo", longitude=15, latitude=37, radius=200, unit="km", withdist=True, withcoord=True
    ),
    lambda r: r.eval("return {KEYS[1], ARGV[1], 1, false}", 1, "k", "a"),
    lambda r: r.eval("return redis.error_reply('MY own error')", 0),
    lambda r: r.eval("syntax error", 0),
    lambda r: r.script_load("return 1"),
    lambda r: r.script_exists("0" * 40),
    lambda r: r.evalsha("0" * 40, 0),
    lambda r: r.register_script("return {KEYS[1], ARGV[1]}")(keys=["k"], args=["v"]),
    lambda r: r.publish("nobody", "m"),
    lambda r: r.pubsub_channels(),
    lambda r: r.pubsub_numsub("nobody"),
    lambda r: r.ping(),
    lambda r: r.echo("e"),
    lambda r: r.config_get("maxmemory"),
    lambda r: r.config_set("maxmemory-samples", 5),
    lambda r: r.config_set("nonsense", 5),
    lambda r: r.client_getname(),
    lambda r: r.slowlog_len(),
    lambda r: r.execute_command("GET", "s", "too", "many"),
    lambda r: r.execute_command("NOSUCHCOMMAND"),
    lambda r: r.execute_command(b"get", "m2"),
    lambda r: r.execute_command("get", "m2"),
    lambda r: r.execute_command("OBJECT", "ENCODING", "m2"),
    lambda r: r.execute_command("OBJECT HELP"),
    lambda r: r.lpush("m2", "wrong type"),
    lambda r: r.command_count(),
    lambda r: r.command_getkeys("MSET", "a", 1, "b", 2),
    lambda r: r.acl_whoami(),
    lambda r: r.wait(0, 10),
    lambda r: r.scan(match="absent:*"),
    lambda r: collect(r.scan_iter(match="h*")),
    lambda r: collect(r.hscan_iter("h")),
    lambda r: collect(r.zscan_iter("absent")),
    lambda r: r.flushdb(),
]


async def collect(iterator: Any) -> list[Any]:
    """List an async iterator's items."""
    return [item async for item in iterator]


async def outcome(call: Call, client: Any) -> object:
    """Return a call's result, or its error with everything that identifies it."""
    try:
        result = await call(client)
    except (RedisError, ValueError, TypeError) as error:
        return type(error), error.args
    else:
        return type(result), result


def url_of(server: RedisServer, db: int) -> str:
    """Return a database of a server."""
    return server.url.rpartition("/")[0] + f"/{db}"


@pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning")  # what redis-py has, we have
@pytest.mark.parametrize("decode", [False, True], ids=["bytes", "str"])
@pytest.mark.parametrize(
    "calls",
    [STRINGS + KEYS, HASHES, LISTS, SETS, SORTED_SETS, STREAMS, OTHERS],
    ids=["strings", "hashes", "lists", "sets", "sorted-sets", "streams", "others"],
)
async def test_calls_give_what_redis_py_gives(
    any_redis: RedisServer, calls: list[Call], *, decode: bool
) -> None:
    """Each call on each client has the same result of the same type, or raises the same error."""
    async with (
        redis.asyncio.Redis.from_url(url_of(any_redis, 1), decode_responses=decode) as theirs,
        RedisPool(url=url_of(any_redis, 2), decode_responses=decode) as pool,
    ):
        for client in (theirs, pool.redis):
            await client.set("m2", "two")
            await client.set("s_is_string", "x")

        for number, call in enumerate(calls):
            expected = await outcome(call, theirs)
            assert (number, await outcome(call, pool.redis)) == (number, expected)


@pytest.mark.parametrize("decode", [False, True], ids=["bytes", "str"])
@pytest.mark.parametrize("protocol", [2, 3])
async def test_protocol_versions_give_what_redis_py_gives(
    any_redis: RedisServer, protocol: int, *, decode: bool
) -> None:
    """With a protocol version asked for, replies have redis-py's shapes for that version."""
    calls: list[Call] = [*SORTED_SETS, *STREAMS[:9], *HASHES, *SETS]

    async with (
        redis.asyncio.Redis.from_url(
            url_of(any_redis, 1), decode_responses=decode, protocol=protocol
        ) as theirs,
        RedisPool(url=url_of(any_redis, 2), decode_responses=decode, protocol=protocol) as pool,
    ):
        for number, call in enumerate(calls):
            expected = await outcome(call, theirs)
            assert (number, await outcome(call, pool.redis)) == (number, expected)


async def pipelined(client: Any, *, transaction: bool, raise_on_error: bool) -> object:
    """Run a pipeline of many types, with an error in its midst."""
    async with client.pipeline(transaction=transaction) as pipe:
        pipe.set("p", 1).incr("p").get("p").hset("ph", mapping={"a": 1}).hgetall("ph")
        pipe.zadd("pz", {"a": 1}).zrange("pz", 0, -1, withscores=True).lpush("p", "wrong type")
        pipe.sadd("ps", "x").smembers("ps").exists("p").expire("p", 100).ttl("p").get("absent")
        length = len(pipe)
        return length, *(await pipe.execute(raise_on_error=raise_on_error))


async def watched(client: Any) -> object:
    """Change a watched key's value in a transaction, and have it changed by another before."""

    async def double(pipe: Any) -> None:
        value = int(await pipe.get("w"))
        pipe.multi()
        pipe.set("w", value * 2)

    await client.set("w", 21)
    first = await client.transaction(double, "w")

    async with client.pipeline() as pipe:
        await pipe.watch("w")
        await client.set("w", "changed")
        pipe.multi()
        pipe.set("w", "lost")
        await pipe.execute()

    return first


async def scripted(client: Any) -> object:
    """Run a script in a pipeline before the server knows it."""
    script = client.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")

    async with client.pipeline() as pipe:
        await script(keys=["n"], args=[2], client=pipe)
        await script(keys=["n"], args=[3], client=pipe)
        return await pipe.execute()


async def aborted(client: Any) -> object:
    """Queue a command that the server refuses at once."""
    async with client.pipeline(transaction=True) as pipe:
        pipe.set("p", 1)
        pipe.execute_command("NOSUCHCOMMAND", "x")
        return await pipe.execute()


async def locked(client: Any) -> object:
    """Use redis-py's own lock, which lives on scripts."""
    async with client.lock("lock", timeout=5) as lock:
        return await lock.owned(), await lock.extend(5), await client.lock("lock").acquire(blocking=False)


@pytest.mark.parametrize("decode", [False, True], ids=["bytes", "str"])
@pytest.mark.parametrize(
    "work",
    [
        lambda client: pipelined(client, transaction=True, raise_on_error=False),
        lambda client: pipelined(client, transaction=True, raise_on_error=True),
        lambda client: pipelined(client, transaction=False, raise_on_error=False),
        lambda client: pipelined(client, transaction=False, raise_on_error=True),
        watched,
        scripted,
        aborted,
        locked,
    ],
)
async def test_pipelines_and_scripts_give_what_redis_py_gives(
    any_redis: RedisServer, work: Call, *, decode: bool
) -> None:
    """Pipelines, transactions, WATCH, scripts and redis-py's lock behave the same, errors included."""
    async with (
        redis.asyncio.Redis.from_url(url_of(any_redis, 1), decode_responses=decode) as theirs,
        RedisPool(url=url_of(any_redis, 2), decode_responses=decode) as pool,
    ):
        await pool.redis.script_flush()
        expected = str(await outcome(work, theirs))
        await pool.redis.script_flush()
        actual = str(await outcome(work, pool.redis))

    assert actual == expected


async def test_pubsub_is_redis_pys(any_redis_url: str) -> None:
    """Redis-py's PubSub works on a connection of its own."""
    async with RedisPool(url=any_redis_url, decode_responses=True) as pool, pool.redis.pubsub() as pubsub:
        await pubsub.subscribe("news")
        await pubsub.psubscribe("n*")
        messages = [await pubsub.get_message(timeout=5) for _ in range(2)]
        assert await pool.redis.publish("news", "hello") == 2
        messages += [await pubsub.get_message(timeout=5) for _ in range(2)]

    assert [message["type"] for message in messages if message] == [
        "subscribe",
        "psubscribe",
        "message",
        "pmessage",
    ]


async def test_monitor_is_redis_pys(any_redis_url: str) -> None:
    """Redis-py's Monitor sees what goes over the shared connection."""
    async with RedisPool(url=any_redis_url) as pool:
        async with pool.redis.monitor() as monitor:
            asking = asyncio.ensure_future(pool.redis.echo("seen"))
            command = await asyncio.wait_for(monitor.next_command(), 5)
            await asking

        assert command["command"] == "ECHO seen"


async def test_own_response_callbacks_are_honoured(redis_url: str) -> None:
    """A response callback set by the user is used from then on, also when it is async."""

    async def shout(response: bytes, **_: object) -> str:
        return response.decode().upper()

    async with RedisPool(url=redis_url) as pool:
        await pool.redis.set("k", "quiet")
        before = await pool.redis.get("k")
        pool.redis.set_response_callback("GET", shout)
        after = await pool.redis.get("k")
        del pool.redis.response_callbacks["GET"]

        assert (before, after, await pool.redis.get("k")) == (b"quiet", "QUIET", b"quiet")


async def test_commands_are_coroutines(redis_url: str) -> None:
    """A typed command can be made a task, as with redis-py."""
    async with RedisPool(url=redis_url) as pool, asyncio.TaskGroup() as group:
        tasks = [group.create_task(cast("Coroutine[Any, Any, int]", pool.redis.incr("n"))) for _ in range(10)]

    assert sorted(task.result() for task in tasks) == list(range(1, 11))
