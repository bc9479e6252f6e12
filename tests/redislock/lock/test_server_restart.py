"""Servers that forget: restarts and fail-overs."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel

from tests.redislock._helpers import broken
from tests.servers import StartServer
from tools.servers import RedisServer, SentinelServers, ValkeyServer
from ws_redislock import LockLost, MutexLock
from ws_redislock.errors import UnavailableError

pytestmark = pytest.mark.outage


class TestRestart:
    """SIGKILL and restart without persistence."""

    @pytest.mark.parametrize("kind", [RedisServer, ValkeyServer])
    async def test_the_loss_is_told_and_fences_increase(
        self, start_server: StartServer, kind: type[RedisServer]
    ):
        """The holder is notified, and the next acquisition has a larger fence."""
        server = start_server(kind)

        async with Redis.from_url(server.url) as client:
            fences = []

            async def body() -> None:
                async with MutexLock(client, "k", 1.5).hold() as held:
                    fences.append(held.fence)
                    server.kill()
                    server.restart()
                    await asyncio.sleep(30)

            with pytest.raises(LockLost):
                await body()

            async with MutexLock(client, "k", 60).hold() as held:
                fences.append(held.fence)

            assert fences[0] < fences[1]

    async def test_a_lease_that_is_made_anew_is_not_lost(self, start_server: StartServer):
        """The control: a RENEW that creates what is not there reports its holder nothing."""
        check = "if tonumber(redis.call('ZSCORE', holders, token) or 0) <= now then return {0} end"
        server = start_server(RedisServer)

        with broken(check, "", "renew"):
            async with Redis.from_url(server.url) as client, MutexLock(client, "k", 1.5).hold() as held:
                server.kill()
                server.restart()
                await asyncio.sleep(2.0)
                held.check()

    async def test_fences_that_only_count_fall_back(self, start_server: StartServer):
        """The control: without the clock the first fence after the restart is not a larger."""
        server = start_server(RedisServer)

        with broken("return next_fence()", "return {1, redis.call('INCR', fence)}", "enter"):
            async with Redis.from_url(server.url) as client:
                async with MutexLock(client, "k", 60).hold() as held:
                    before = held.fence

                server.kill()
                server.restart()

                async with MutexLock(client, "k", 60).hold() as held:
                    assert held.fence <= before

    async def test_waiters_survive_it(self, start_server: StartServer):
        """A waiter whose place was forgotten queues anew, and gets the lock."""
        server = start_server(RedisServer)

        async with Redis.from_url(server.url) as client:
            first = MutexLock(client, "k", 60)
            second = MutexLock(client, "k", 60, heartbeat=1.5)
            await first.acquire()
            waiting = asyncio.create_task(second.acquire(None))

            while await first.waiters() == 0:
                await asyncio.sleep(0)

            server.kill()
            server.restart()

            async with asyncio.timeout(10):
                assert await waiting

            await second.release()
            assert not await first.release()


class TestShortMemory:
    """A server that takes no more writes."""

    async def test_releases_go_on(self, start_server: StartServer):
        """Locks are given back, alone and together, and waiters are undone; new ones are refused."""
        server = start_server(RedisServer)

        async with Redis.from_url(server.url) as client:
            held = [MutexLock(client, f"k{number}", 60) for number in range(20)]
            assert all(await asyncio.gather(*(lock.acquire() for lock in held)))
            waiting = MutexLock(client, "k0", 60)
            task = asyncio.create_task(waiting.acquire(None))

            while await waiting.waiters() == 0:
                await asyncio.sleep(0)

            await client.config_set("maxmemory", 1)
            assert await held[1].release()

            with pytest.raises(UnavailableError, match="maxmemory"):
                await MutexLock(client, "new", 60).acquire()

            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await waiting.aclose()
            assert all(await asyncio.gather(*(lock.release() for lock in held if lock is not held[1])))
            assert await waiting.waiters() == 0
            assert not await held[0].exists()


class TestSentinel:
    """Fail-over to a replica that never had the lock."""

    @pytest.mark.parametrize("valkey", [False, True], ids=["redis", "valkey"])
    async def test_the_loss_is_told_and_fences_increase(self, start_server: StartServer, valkey: bool):
        """The paused replica becomes the master: the holder is notified, another gets a larger fence."""
        servers = start_server(SentinelServers, valkey=valkey)
        servers.wait_settled()
        sentinel = Sentinel(servers.addresses, socket_timeout=1.0)
        client = sentinel.master_for(servers.name, socket_timeout=1.0)
        fences = []

        async def body() -> None:
            (replica,) = servers.replicas
            before = servers.master
            replica.pause()
            before.command("CLIENT", "KILL", "TYPE", "replica")

            async with MutexLock(client, "k", 5).hold() as held:
                fences.append(held.fence)
                before.kill()
                replica.resume()
                await asyncio.to_thread(servers.wait_failover, before)
                await asyncio.sleep(30)

        with pytest.raises(LockLost):
            await body()

        other = MutexLock(client, "k", 60)
        assert await other.acquire(timeout=20)
        fences.append(other.fence)
        assert fences[0] < fences[1]
        await other.release()
        await client.aclose()

        for connection in sentinel.sentinels:
            await connection.aclose()

    async def test_replicas_must_confirm(self, start_server: StartServer):
        """With min_replicas a lock that no replica has confirmed is not acquired, and not left behind."""
        servers = start_server(SentinelServers)
        servers.wait_settled()
        (replica,) = servers.replicas

        async with Redis.from_url(servers.master.url) as client:
            async with MutexLock(client, "k", 60, min_replicas=1).hold():
                pass

            replica.pause()
            lock = MutexLock(client, "k", 2, min_replicas=1)

            with pytest.raises(UnavailableError, match="only 0 of 1 replicas"):
                await lock.acquire()

            await lock.aclose()
            assert not await lock.exists()
            replica.resume()


class TestLockDelay:
    """A pause after an involuntary loss."""

    async def test_the_lock_stays_closed(self, redis: Redis):
        """After a lease that was not given back nobody gets the lock for a while."""
        lost = MutexLock(redis, "k", 0.5, auto_renew=False, lock_delay=1.0)
        other = MutexLock(redis, "k", 60, lock_delay=1.0)
        await lost.acquire()
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await other.acquire(timeout=10)
        assert loop.time() - began >= 1.4
        await other.release()
        assert not await lost.release()

    async def test_a_release_opens_it_at_once(self, redis: Redis):
        """A lock that was given back has no such pause."""
        one, two = (MutexLock(redis, "k", 60, lock_delay=60.0) for _ in range(2))
        await one.acquire()
        await one.release()
        assert await two.acquire()
        await two.release()
