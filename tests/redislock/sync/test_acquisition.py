"""Threads: bad input, late replies, and acquisitions through outages."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

from tests.redislock._helpers import cluster_client
from tests.redislock._threads import until
from tests.servers import StartServer
from tools.servers import RedisServer
from ws_redislock._lease.lease import boot_time
from ws_redislock.errors import ConfigError, UnavailableError, UsageError
from ws_redislock.sync import (
    MultiLock,
    MutexLock,
)
from ws_redislock.sync._coordination.coordinator import coordinator_for
from ws_redislock.sync._lock import acquisition

HOLDERS = "wsl:m:{k}:holders"
AT_ONCE = Retry(NoBackoff(), 0)
NOWHERE = "redis://127.0.0.1:1/0"


class TestBadInput:
    """What cannot work is refused before any command."""

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("expire", 1e15),
            ("expire", 0.001),
            ("heartbeat", 1e15),
            ("lock_delay", -1),
            ("min_replicas", True),
            ("on_lost", 3),
            ("auto_renew", None),
            ("reentrant", 1),
        ],
    )
    def test_options(self, client: Redis, option: str, value: object):
        """Each error names the option and the value."""
        with pytest.raises(ConfigError, match=f"{option} must be") as caught:
            MutexLock(client, "k", **{option: value})  # type: ignore[arg-type]

        assert repr(value) in str(caught.value)

    @pytest.mark.parametrize("seconds", [-1, float("nan"), "x", True])
    def test_timeouts(self, client: Redis, seconds: float):
        """A timeout that is not a time is refused, wherever it is given."""
        for call in (
            MutexLock(client, "k").acquire,
            MutexLock(client, "k").wait,
            MultiLock(client, ["k", "l"]).acquire,
        ):
            with pytest.raises(ConfigError, match="timeout must be"):
                call(seconds)

    def test_replicas_of_a_cluster(self, cluster_url: str):
        """A cluster cannot wait for replicas on the connection of a script."""
        with (
            cluster_client(cluster_url) as client,
            pytest.raises(UsageError, match="not a cluster"),
        ):
            MutexLock(client, "k", min_replicas=1).acquire()


class TestLateReplies:
    """Replies that come after the end of their own lease."""

    @pytest.fixture(autouse=True)
    def _late(self, monkeypatch: pytest.MonkeyPatch):
        """Let the clock that judges a granted lease run far ahead."""
        monkeypatch.setattr(acquisition, "boot_time", lambda: boot_time() + 1000)

    def test_one_try(self, client: Redis):
        """A single try fails, and nothing stays behind."""
        lock = MutexLock(client, "k", 60)
        assert not lock.acquire()
        lock.close()
        assert not lock.exists()

    def test_three_are_enough(self, client: Redis):
        """Waiting for ever, three of them are an error."""
        lock = MutexLock(client, "k", 60)

        with pytest.raises(UnavailableError, match="3 replies in a row came after"):
            lock.acquire(None)

        lock.close()
        assert not lock.exists()

    def test_end_with_the_timeout(self, client: Redis):
        """The timeout counts also when every reply comes too late."""
        lock = MutexLock(client, "k", 60)
        assert not lock.acquire(1e-9)
        lock.close()
        assert not lock.exists()


class TestAcquiring:
    """The way to a lock."""

    def test_given_up_by_the_server(self, client: Redis, pool: ThreadPoolExecutor):
        """An acquisition that the server refuses for good is an error, and no endless wait."""
        first, second = MutexLock(client, "k", 60), MutexLock(client, "k", 60)
        assert first.acquire()
        waiting = pool.submit(second.acquire, None)
        until(first.waiters)
        coordinator = coordinator_for(client)
        (waiter,) = coordinator._waiters.values()
        second._protocol._abandon(coordinator, waiter.token, 1.0)
        waiter.set()

        with pytest.raises(UnavailableError, match="gave up this acquisition"):
            waiting.result(10)

        assert first.release()

    def test_once_at_a_time(self, client: Redis, pool: ThreadPoolExecutor):
        """An object that another thread acquires by now is refused."""
        first, second = MutexLock(client, "k", 60), MutexLock(client, "k", 60)
        assert first.acquire()
        waiting = pool.submit(second.acquire, None)
        until(first.waiters)

        with pytest.raises(UsageError, match="is being acquired"):
            second.acquire()

        assert first.release()
        assert waiting.result(10)
        assert second.release()

    @pytest.mark.parametrize("min_replicas", [0, 1])
    def test_a_key_of_another_type(self, client: Redis, min_replicas: int):
        """A mistake in the data stays what it is, with and without replicas to confirm."""
        client.set(HOLDERS, "x")
        lock = MutexLock(client, "k", 60, min_replicas=min_replicas)

        with pytest.raises(ResponseError, match="WRONGTYPE"):
            lock.acquire()

        client.delete(HOLDERS)
        assert not lock.exists()

    def test_replicas_through_a_client_of_another_class(self, redis_url: str):
        """A client with commands of its own is asked through its pipeline."""

        class Own(Redis):
            def execute_command(self, *args: Any, **options: Any) -> Any:  # as the driver's
                return super().execute_command(*args, **options)

        with Own.from_url(redis_url) as client:
            lock = MutexLock(client, "k", 0.5, min_replicas=1)

            with pytest.raises(UnavailableError, match="only 0 of 1"):
                lock.acquire()

            lock.close()
            assert not lock.exists()

    def test_through_an_outage(
        self,
        start_server: StartServer,
        pool: ThreadPoolExecutor,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ):
        """A waiter without a deadline gets the lock after the outage, one with a deadline an error."""
        server = start_server(RedisServer)

        with Redis.from_url(server.url) as client:
            held = MutexLock(client, "held", 60)
            assert held.acquire()
            monkeypatch.setattr(acquisition, "BUDGET", 0.1)
            server.kill()

            with pytest.raises(UnavailableError, match="RENEW"):
                held.renew()

            lock = MutexLock(client, "k", 60)
            waiting = pool.submit(lock.acquire, None)

            with pytest.raises(UnavailableError):
                MutexLock(client, "k2", 60).acquire(0.2)

            until(lambda: "through an outage" in caplog.text)
            assert not waiting.done()
            server.restart()
            assert waiting.result(20)
            assert lock.release()
            assert not held.release()
            held.close()

    def test_waits_for_ever(self, client: Redis):
        """Without a timeout, the wait for a free lock ends when it is free."""
        assert MutexLock(client, "k", 60).wait()
