"""What is taken for a Redis client: clients, pools, managers, names of pools and URLs."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import redis as blocking
from redis.asyncio import Redis

from tools.servers import RedisServer
from ws_redislock import FrequencyLimiter, MultiLock, MutexLock, RunClaims, UsageError, sync
from ws_redislock._redis import clients


class Pool:
    """A pool that has its client once it was started."""

    def __init__(self, client: object = None) -> None:
        self.client = client

    @property
    def redis(self) -> object:
        """The client."""
        if self.client is None:
            raise RuntimeError("not started")

        return self.client


class Manager:
    """A set of pools."""

    def __init__(self, **pools: Pool) -> None:
        self.pools = pools

    def get_pool(self, name: str = "default") -> Pool:
        """Return a pool."""
        return self.pools[name]


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin without a manager, whichever another test has found."""
    monkeypatch.setattr(clients, "_managers", [])


def publish(monkeypatch: pytest.MonkeyPatch, *managers: Manager) -> None:
    """Let an installed distribution publish managers."""
    entries = [SimpleNamespace(load=lambda manager=manager: manager) for manager in managers]

    def entry_points(*, group: str, name: str) -> list[Any]:
        assert (group, name) == ("wintersweet.redis", "pools")
        return entries

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)


class TestSources:
    """Each is bound at its first use."""

    async def test_a_pool_that_is_started_later(self, redis7: Redis):
        """It is not asked for its client before."""
        pool = Pool()
        lock = MutexLock(pool, "k", 60)

        with pytest.raises(RuntimeError, match="not started"):
            await lock.acquire()

        pool.client = redis7
        assert await lock.acquire()
        assert await lock.release()

    async def test_a_manager(self, redis7: Redis):
        """Its default pool is used, and it may get that later."""
        manager = Manager()
        lock, limiter = MutexLock(manager, "k", 60), FrequencyLimiter(manager, 60, 2)
        manager.pools["default"] = Pool(redis7)
        assert await lock.acquire()
        assert await lock.release()
        assert (await limiter.hit("k")).allowed
        assert await RunClaims(manager).claim("r", 60)

        async with MultiLock(manager, ["a", "b"], 60).hold():
            pass

    async def test_the_name_of_a_pool(self, redis7: Redis, monkeypatch: pytest.MonkeyPatch):
        """It is that of the manager which an installed ws-pool publishes; its client stays open."""
        publish(monkeypatch, Manager(jobs=Pool(redis7)))

        async with MutexLock("jobs", "k", 60).hold():
            pass

        async with MultiLock("jobs", ["a", "b"], 60).hold():
            pass

        assert await redis7.ping()
        lock = MutexLock("other", "k", 60)

        with pytest.raises(KeyError, match="other"):
            await lock.acquire()

    async def test_a_url(self, any_redis: RedisServer):
        """A client is made of it."""
        async with MutexLock(any_redis.url, "k", 60).hold():
            pass


class TestWrongOnes:
    """What cannot be a source is refused when the object is made."""

    @pytest.mark.parametrize(
        ("source", "part"),
        [
            (None, "'NoneType' is not a Redis client"),
            (5, "'int' is not a Redis client"),
            ("http://127.0.0.1:1", "begins with redis://, rediss://, unix://, not 'http://127.0.0.1:1'"),
            ("jobs", "'jobs' is not a URL"),
            ("", "'' is not a URL"),
            (blocking.Redis(), "blocks the event loop"),
        ],
        ids=["None", "number", "other URL", "name", "empty", "blocking"],
    )
    @pytest.mark.parametrize(
        "make",
        [
            lambda source: MutexLock(source, "k", 60),
            lambda source: FrequencyLimiter(source, 60, 2),
            lambda source: RunClaims(source),  # noqa: PLW0108 - typed as the others
            lambda source: MultiLock(source, ["k"], 60),
        ],
        ids=["lock", "limiter", "claims", "several"],
    )
    def test_are_refused(
        self, monkeypatch: pytest.MonkeyPatch, make: Callable[[Any], object], source: object, part: str
    ):
        """The error says what it is, and what to pass."""
        publish(monkeypatch)

        with pytest.raises(UsageError, match=part):
            make(source)

    async def test_of_threads(self, redis7: Redis):
        """A client for asyncio is refused where threads work."""
        with pytest.raises(UsageError, match="for asyncio"):
            sync.MutexLock(redis7, "k", 60)

    async def test_in_a_pool(self):
        """What a pool holds is looked at when it is used."""
        lock = MutexLock(Pool(blocking.Redis()), "k", 60)

        with pytest.raises(UsageError, match="blocks the event loop"):
            await lock.acquire()
