"""Options that cannot work, and observers that fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from tools.servers import ClusterServers
from ws_redislock import LockLost, MultiLock, MutexLock
from ws_redislock.errors import ConfigError, UsageError


class TestRefused:
    """What is no option is refused before any command."""

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
        ],
    )
    async def test_options(self, redis7: Redis, option: str, value: object):
        """Each error names the option and the value."""
        with pytest.raises(ConfigError, match=f"{option} must be") as caught:
            MutexLock(redis7, "k", **{option: value})  # type: ignore[arg-type]

        assert repr(value) in str(caught.value)

    @pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "x", True])
    async def test_timeouts(self, redis7: Redis, seconds: float):
        """A timeout that is no time is refused, by one lock and by several."""
        with pytest.raises(ConfigError, match="timeout must be"):
            await MutexLock(redis7, "k").acquire(seconds)

        with pytest.raises(ConfigError, match="timeout must be"):
            await MultiLock(redis7, ["k", "l"]).acquire(seconds)

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


class TestFailingObserver:
    """An observer that raises is logged, and changes nothing."""

    async def test_changes_nothing(self, redis: Redis, caplog: pytest.LogCaptureFixture):
        """Locks are acquired, lost and given back all the same."""
        one, two = (MutexLock(redis, "k", 60, observer=FailingObserver()) for _ in range(2))

        with caplog.at_level(logging.ERROR, logger="ws_redislock"):
            assert await one.acquire()
            assert not await two.acquire(0.01)
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
