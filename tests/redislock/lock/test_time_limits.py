"""Time limits on a slow or silent Redis, and outages that are waited through."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import redis as blocking
from redis.asyncio import Redis

from tests.servers import StartServer
from tools.servers import RedisServer
from ws_core.testing import FaultProxy
from ws_redislock import FrequencyLimiter, LeaderElection, MutexLock, Semaphore, sync
from ws_redislock._coordination.coordinator import coordinator_for
from ws_redislock._lease.lease import boot_time
from ws_redislock._lock import acquisition
from ws_redislock.errors import UnavailableError

pytestmark = pytest.mark.outage


@pytest.fixture
async def server(start_server: StartServer) -> RedisServer:
    """Return a server that may be paused."""
    return start_server(RedisServer)


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[Redis]:
    """Yield a client of it that has its connection."""
    async with Redis.from_url(server.url) as client:
        async with MutexLock(client, "warm", 60).hold():
            pass

        yield client
        server.resume()


class TestShortLeases:
    """Leases shorter than a round trip."""

    async def test_end_with_an_error(self, any_redis: RedisServer):
        """Three replies that come after the end of their own lease are enough."""
        async with (
            FaultProxy(*any_redis.address) as proxy,
            Redis.from_url(proxy.url(any_redis.url)) as client,
        ):
            async with MutexLock(client, "warm", 60).hold():
                pass

            proxy.delay(0.04)

            with pytest.warns(RuntimeWarning, match="leaves"):
                lock = MutexLock(client, "k", 0.02)

            with pytest.raises(UnavailableError, match="3 replies in a row came after"):
                await asyncio.wait_for(lock.acquire(None), 20)

            await lock.aclose()

    async def test_end_with_the_timeout(self, redis: Redis, monkeypatch: pytest.MonkeyPatch):
        """The timeout counts also when every reply comes too late."""
        monkeypatch.setattr(acquisition, "boot_time", lambda: boot_time() + 1000)
        lock = MutexLock(redis, "k", 60)
        assert not await lock.acquire(1e-9)
        await lock.aclose()
        assert not await lock.exists()


class TestSilence:
    """A server that says nothing more."""

    async def test_the_deadline_of_a_waiter(self, server: RedisServer, client: Redis):
        """A waiter whose time is over returns, and does not wait for the queue to be left."""
        first, second = MutexLock(client, "k", 60), MutexLock(client, "k", 60)
        await first.acquire()

        # A waiter whose subscription began after its ENTER asks again, and the pause could catch that ENTER.
        async with MutexLock(client, "warm", 60).hold():
            assert not await MutexLock(client, "warm", 60).acquire(0.5)
            assert coordinator_for(client)._wakeups._ready.is_set()

        waiting = asyncio.create_task(second.acquire(1.0))

        while not await first.waiters():
            await asyncio.sleep(0)

        server.pause()
        began = time.monotonic()
        assert not await waiting
        assert time.monotonic() - began < 3.0
        server.resume()
        await second.aclose()
        assert await first.release()

    async def test_a_single_try_in_a_block(self, server: RedisServer, client: Redis):
        """A block around a single try ends with that try's 5 s: undoing it goes on in the background."""
        async with MutexLock(client, "warm", 60).hold():
            pass

        server.pause()
        began = time.monotonic()

        with pytest.raises(UnavailableError):
            async with MutexLock(client, "k", 60) as lock:
                await lock.acquire()

        assert time.monotonic() - began < 7.5
        server.resume()

        async with asyncio.timeout(10):
            while await lock.exists() or coordinator_for(client)._jobs:
                await asyncio.sleep(0.05)

    async def test_many_callers_with_one_deadline(self, server: RedisServer, client: Redis):
        """What goes together ends when the most impatient caller has to."""
        server.pause()
        began = time.monotonic()
        limiter = FrequencyLimiter(client, 60, 1000, timeout=0.1, on_error="open")
        locks = [MutexLock(client, f"k{number}", 60) for number in range(30)]
        outcomes, verdicts = await asyncio.gather(
            asyncio.gather(*(lock.acquire(0.1) for lock in locks), return_exceptions=True),
            asyncio.gather(*(limiter.hit(f"k{number}") for number in range(30))),
        )
        assert time.monotonic() - began < 3.0
        assert {type(outcome) for outcome in outcomes} == {UnavailableError}
        assert all(verdict.degraded for verdict in verdicts)
        server.resume()
        await asyncio.gather(*(lock.aclose() for lock in locks))

    async def test_connecting_and_calling_share_a_deadline(self, server: RedisServer):
        """What the connection took is not given to the call again."""
        async with (
            FaultProxy(*server.address) as proxy,
            Redis.from_url(proxy.url(server.url)) as client,
        ):
            wire = coordinator_for(client).scripts._sender._shared
            assert wire is not None
            spent: list[float] = []
            connect = wire._connect

            async def slowly() -> object:
                link = await connect()
                await asyncio.sleep(0.3)
                call = link.call

                def remember(data: tuple[str | bytes | int, ...], within: float) -> asyncio.Future[object]:
                    spent.append(within)
                    return call(data, within)

                link.call = remember  # type: ignore[method-assign,assignment]
                return link

            wire._connect = slowly  # type: ignore[method-assign,assignment]
            assert await wire.call(("PING",), 1.0) == b"PONG"
            assert 0 < spent[0] <= 0.7


class TestOutage:
    """Outages in the course of an acquisition."""

    async def test_a_waiter_goes_on(
        self, server: RedisServer, client: Redis, monkeypatch: pytest.MonkeyPatch
    ):
        """A waiter without a deadline gets the lock after an outage longer than a command's budget."""
        monkeypatch.setattr(acquisition, "BUDGET", 0.2)
        server.kill()
        lock = MutexLock(client, "k", 60)
        waiting = asyncio.create_task(lock.acquire(None))
        limited = asyncio.create_task(MutexLock(client, "k2", 60).acquire(0.5))

        with pytest.raises(UnavailableError):
            await limited

        assert not waiting.done()
        server.restart()

        async with asyncio.timeout(20):
            assert await waiting

        await lock.release()

    async def test_a_candidate_stands_again(
        self, server: RedisServer, client: Redis, monkeypatch: pytest.MonkeyPatch
    ):
        """A leader that lost office in an outage, or was refused, leads again after it."""
        monkeypatch.setattr(acquisition, "BUDGET", 0.2)
        fences: list[int] = []
        down = asyncio.Event()

        async def lead() -> None:
            async with LeaderElection(client, "k", lease=0.6) as election:
                async for term in election:
                    fences.append(term.fence)

                    if len(fences) == 2:
                        return

                    async with term:
                        down.set()
                        await asyncio.sleep(60)

        task = asyncio.create_task(lead())
        await down.wait()
        server.kill()
        await asyncio.sleep(1.0)
        server.restart()
        await client.config_set("maxmemory", 1)
        await asyncio.sleep(0.3)
        await client.config_set("maxmemory", 0)

        async with asyncio.timeout(20):
            await task

        assert fences[0] < fences[1]

    async def test_refused_credentials_are_told(self, start_server: StartServer):
        """A wrong password ends even an acquisition that would wait for ever."""
        server = start_server(RedisServer, config={"requirepass": "right"})

        async with Redis(host=server.host, port=server.port, password="wrong") as client:
            with pytest.raises(UnavailableError):
                await asyncio.wait_for(MutexLock(client, "k", 60).acquire(None), 10)


class TestLateRequests:
    """An ENTER that reaches the server long after its acquisition ended."""

    @pytest.mark.parametrize("limit", [1, 2])
    async def test_is_refused_when_it_was_asked_again(self, any_redis: RedisServer, limit: int):
        """The release of an acquisition with an unanswered ENTER is remembered for as long."""
        async with (
            FaultProxy(*any_redis.address) as proxy,
            Redis.from_url(proxy.url(any_redis.url)) as client,
        ):
            for lost in (False, True):
                lock = Semaphore(client, f"k{lost}", limit, 60)

                if lost:
                    proxy.drop_reply(1, match="EVALSHA", then="close")

                assert await lock.acquire()
                token = lock.current().token
                assert await lock.release()
                left = await client.pttl(f"wsl:s:{{k{lost}}}:done:{token}")
                assert (left > 10_000) is lost

    async def test_is_refused_after_a_try_that_failed(self, any_redis: RedisServer, redis: Redis):
        """A caller that tried once, without an answer, and was refused then does not get the lock later."""
        async with (
            FaultProxy(*any_redis.address) as proxy,
            Redis.from_url(proxy.url(any_redis.url)) as client,
            MutexLock(redis, "k", 60).hold() as held,
        ):
            proxy.drop_request(1, match="EVALSHA", then="close")
            lock = MutexLock(client, "k", 60)
            assert not await lock.acquire()
            await lock.aclose()
            serial = f"x{coordinator_for(client).id}.1"
            assert await redis.pttl(f"wsl:m:{{k}}:done:{serial}") > 10_000
            assert held.locked

    async def test_is_refused_after_a_loss(self, any_redis: RedisServer):
        """The release of a lost lock with an unanswered ENTER leaves a tombstone as well."""
        async with (
            FaultProxy(*any_redis.address) as proxy,
            Redis.from_url(proxy.url(any_redis.url)) as client,
        ):
            proxy.drop_reply(1, match="EVALSHA", then="close")
            lock = MutexLock(client, "k", 60)
            assert await lock.acquire()
            token = lock.current().token
            await client.delete("wsl:m:{k}:holders")
            assert not await lock.renew()
            await lock.aclose()
            assert await client.pttl(f"wsl:m:{{k}}:done:{token}") > 10_000


class TestThreads:
    """The twin for threads."""

    def test_confirmation_ends_in_time(self, server: RedisServer):
        """A thread that waits for replicas' confirmation on a silent server waits for its budget only."""
        client = blocking.Redis.from_url(server.url)
        lock = sync.MutexLock(client, "k", 60, min_replicas=1)

        with pytest.raises(UnavailableError, match="only 0 of 1"):
            lock.acquire(2)

        server.pause()

        try:
            with pytest.raises(UnavailableError, match="no reply in time"):
                sync.MutexLock(client, "k", 60, min_replicas=1).acquire(0.2)
        finally:
            server.resume()

        lock.close()
        client.close()
