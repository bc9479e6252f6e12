"""A cluster of three masters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from tests.redislock._helpers import until_waiting
from tools.servers import ClusterServers, CommandError
from ws_redislock import (
    FrequencyLimiter,
    MultiLock,
    MutexLock,
    ReadWriteLock,
    Semaphore,
    SlidingWindowLimiter,
    TokenBucketLimiter,
)
from ws_redislock._redis.scripts import load


@pytest.fixture(scope="module")
def valkey_cluster_servers() -> Iterator[ClusterServers]:
    """Yield a cluster of Valkeys."""
    with ClusterServers(valkey=True) as servers:
        yield servers


@pytest.fixture(
    params=["cluster_servers", pytest.param("valkey_cluster_servers", marks=pytest.mark.once)],
    ids=["redis", "valkey"],
)
def servers(request: pytest.FixtureRequest) -> ClusterServers:
    """Return a cluster of Redis, then of Valkey."""
    servers = request.getfixturevalue(request.param)
    assert isinstance(servers, ClusterServers)
    return servers


@pytest.fixture
async def cluster(servers: ClusterServers) -> AsyncIterator[RedisCluster]:
    """Yield the client of an empty cluster."""
    client = RedisCluster.from_url(servers.url)
    await client.flushall(target_nodes=RedisCluster.PRIMARIES)
    yield client
    await client.aclose()


async def until_messages_pass(servers: ClusterServers) -> None:
    """Publish between all nodes until each message reaches each: a new bus may lose messages."""
    for target in servers.masters:
        async with (
            Redis.from_url(target.url) as client,
            client.pubsub(ignore_subscribe_messages=True) as heard,
        ):
            await heard.subscribe("warm")
            await heard.ping()

            for source in servers.masters:
                message = None

                while message is None or message["data"] != source.url.encode():
                    source.command("PUBLISH", "warm", source.url)
                    message = await heard.get_message(timeout=0.1)


class TestCluster:
    """Keys of one lock lie in one slot, wherever that is."""

    async def test_everything_stays_in_its_slot(self, cluster: RedisCluster):
        """No kind of lock or limiter crosses slots, for names all over the cluster."""
        for number in range(12):
            name = f"name {number} {{x}}"

            async with MutexLock(cluster, name, 60).hold(), Semaphore(cluster, name, 2, 60).hold():
                pass

            async with ReadWriteLock(cluster, name, 60).write().hold():
                pass

            for limiter in (
                FrequencyLimiter(cluster, 60, 3),
                SlidingWindowLimiter(cluster, 60, 3),
                TokenBucketLimiter(cluster, 1, 3),
            ):
                assert (await limiter.hit(name)).allowed

    async def test_keys_without_a_tag_do_not(self, servers: ClusterServers, monkeypatch: pytest.MonkeyPatch):
        """The control: without the hash tag the client, and then the server, finds more than one slot."""
        monkeypatch.setattr("ws_redislock._redis.keys.tagged", lambda *parts: f"{':'.join(parts)}:")

        async with RedisCluster.from_url(servers.url) as client:
            lock = MutexLock(client, "a name that no other test uses", 60)

            with pytest.raises(Exception, match="slot"):
                await lock.acquire()

        keys = lock._keys.of("x.1")

        with pytest.raises(CommandError, match="ClusterCrossSlotError"):
            servers.nodes[0].command("EVAL", load("enter").text, len(keys), *keys, "x.1", 60_000, 0, 1, 0)

    async def test_several_names_over_several_nodes(self, cluster: RedisCluster):
        """A MultiLock holds names of different nodes."""
        async with MultiLock(cluster, [f"n{number}" for number in range(9)], 60).hold() as fences:
            assert len(fences) == 9

    async def test_wakes_waiters(self, cluster: RedisCluster):
        """A release wakes the waiter on whatever node its subscription is."""
        for number in range(6):
            one, two = (MutexLock(cluster, f"k{number}", 60, heartbeat=30) for _ in range(2))
            await one.acquire()
            waiting = asyncio.create_task(two.acquire(None))
            await until_waiting(one)
            await one.release()

            async with asyncio.timeout(5):
                assert await waiting

            await two.release()

    async def test_wakes_another_client(self, cluster: RedisCluster, servers: ClusterServers):
        """The wake-up goes through the cluster's own bus."""
        await until_messages_pass(servers)

        async with RedisCluster.from_url(servers.url) as other:
            for number in range(6):
                one = MutexLock(cluster, f"k{number}", 60, heartbeat=30)
                two = MutexLock(other, f"k{number}", 60, heartbeat=30)
                await one.acquire()
                waiting = asyncio.create_task(two.acquire(None))
                await until_waiting(one)
                await one.release()

                async with asyncio.timeout(5):
                    assert await waiting

                await two.release()

    async def test_the_slot_moves_while_it_is_held(self, cluster: RedisCluster, servers: ClusterServers):
        """The lease is renewed and released on the node that has the slot now."""
        lock, other = MutexLock(cluster, "moving", 2), MutexLock(cluster, "moving", 60, heartbeat=2)

        async with lock.hold() as held:
            waiting = asyncio.create_task(other.acquire(None))
            await until_waiting(lock)
            slot = servers.slot_of("wsl:m:{moving}:holders")
            await asyncio.to_thread(servers.move_slot(slot).run)
            await asyncio.sleep(2.2)
            held.check()
            fence = held.fence

        async with asyncio.timeout(10):
            assert await waiting

        assert other.fence > fence
        await other.release()
