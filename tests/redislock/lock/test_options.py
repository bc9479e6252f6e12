"""Options that cannot work, and observers that fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import Enum

import pytest
from redis.asyncio import Redis

from tests.redislock._helpers import until_waiting
from tools.servers import ClusterServers
from ws_redislock import FrequencyLimiter, LockLost, MultiLock, MutexLock, RunClaims
from ws_redislock.errors import ConfigError, UsageError


class TestRefused:
    """What is not an option is refused before any command."""

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("expire", 1e15),
            ("expire", 1e300),
            ("expire", 0.001),
            ("heartbeat", 1e15),
            ("lock_delay", 1e15),
            ("min_replicas", 1.5),
            ("min_replicas", True),
            ("min_replicas", "x"),
            ("min_replicas", -1),
            ("on_lost", 3),
            ("auto_renew", None),
            ("reentrant", 1),
            ("auto_renew", []),
            ("heartbeat", {}),
            ("min_replicas", [1]),
            ("lock_delay", [0.0]),
            ("reentrant", set()),
        ],
    )
    async def test_options(self, redis7: Redis, option: str, value: object):
        """Each error names the option and the value."""
        with pytest.raises(ConfigError, match=f"{option} must be") as caught:
            MutexLock(redis7, "k", **{option: value})  # type: ignore[arg-type]

        assert repr(value) in str(caught.value)

    @pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "x", True, "", []])
    async def test_timeouts(self, redis7: Redis, seconds: float):
        """A timeout that is not a time is refused, by one lock and by several."""
        with pytest.raises(ConfigError, match="timeout must be"):
            await MutexLock(redis7, "k").acquire(seconds)

        with pytest.raises(ConfigError, match="timeout must be"):
            await MultiLock(redis7, ["k", "l"]).acquire(seconds)

    @pytest.mark.parametrize("names", [["k", ["l"]], [None], [b"k"], ["k", ""]])
    async def test_several_names(self, redis7: Redis, names: list[str]):
        """Each of several names must be one."""
        with pytest.raises(ConfigError, match="name must be"):
            MultiLock(redis7, names)

    async def test_replicas_of_a_cluster(self, cluster_servers: ClusterServers):
        """A cluster cannot wait for replicas on the connection of a script."""
        from redis.asyncio.cluster import RedisCluster

        async with RedisCluster.from_url(cluster_servers.url) as client:
            with pytest.raises(UsageError, match="not a cluster"):
                await MutexLock(client, "k", min_replicas=1).acquire()


class FailingObserver:
    """An observer that always raises."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        def fail(*arguments: object) -> None:
            raise ZeroDivisionError(name, *arguments)

        return fail


class Task(str, Enum):  # noqa: UP042 - a StrEnum writes itself as its value
    """Names with a type of their own."""

    REPORT = "report"


class TestNames:
    """Names whose class says something else of itself."""

    async def test_of_locks(self, redis7: Redis):
        """They are the text that they are equal to, and name one lock."""
        async with MutexLock(redis7, "report", 60).hold():
            assert not await MutexLock(redis7, Task.REPORT, 60).acquire()
            assert not await MultiLock(redis7, [Task.REPORT], 60).acquire()

        assert MultiLock(redis7, [Task.REPORT, "report"]).names == ("report",)

    async def test_of_limiters(self, redis7: Redis):
        """They count as their text, under the limiter's own key, and touch no other."""
        await redis7.set("report", "another's")
        limiter = FrequencyLimiter(redis7, 60, 2, namespace=Task.REPORT)
        assert await limiter.is_limited("report") is False
        assert (await limiter.hit(Task.REPORT)).remaining == 0
        assert (await FrequencyLimiter(redis7, 60, 2, namespace="report").peek("report")).remaining == 0
        assert await redis7.get("report") == b"another's"

    async def test_of_runs(self, redis7: Redis):
        """A run has one claim, however its name is written."""
        assert await RunClaims(redis7, namespace="report").claim("report", 60)
        assert not await RunClaims(redis7, namespace=Task.REPORT).claim(Task.REPORT, 60)


class TestTwice:
    """A lock of several names that is acquired again."""

    async def test_while_held(self, redis7: Redis):
        """That is an error, and takes nothing from the holder."""
        lock = MultiLock(redis7, ["k", "l"], 60)
        assert await lock.acquire()
        fences = lock.fences

        with pytest.raises(UsageError, match="already"):
            await lock.acquire()

        assert lock.locked
        assert lock.fences == fences
        assert await lock.release()
        assert await lock.acquire()
        assert await lock.release()

    async def test_while_acquiring(self, redis7: Redis):
        """That is an error, and the one who waits is served."""
        lock = MultiLock(redis7, ["k", "l"], 60)

        async with MutexLock(redis7, "l", 60).hold() as other:
            waiting = asyncio.create_task(lock.acquire(None))
            await until_waiting(MutexLock(redis7, "l", 60))

            with pytest.raises(UsageError, match="already"):
                await lock.acquire()

            assert other.locked

        assert await waiting
        assert await lock.release()


class TestFailingObserver:
    """An observer that raises is logged, and changes nothing."""

    async def test_changes_nothing(self, redis: Redis, caplog: pytest.LogCaptureFixture):
        """Locks are acquired, lost and given back all the same."""
        one, two = (MutexLock(redis, "k", 60, observer=FailingObserver()) for _ in range(2))

        with caplog.at_level(logging.ERROR, logger="ws_redislock"):
            assert await one.acquire()
            assert not await two.acquire(0.5)
            assert await one.release()

            async def body() -> None:
                async with one.hold():
                    await two.force_release()
                    await asyncio.sleep(10)

            with pytest.raises(LockLost):
                await body()

        assert not await one.exists()
        errors = [record.exc_info[1] for record in caplog.records if record.exc_info]
        said = {error.args[0] for error in errors if error is not None}
        assert said == {"acquired", "contended", "not_acquired", "released", "lost"}
