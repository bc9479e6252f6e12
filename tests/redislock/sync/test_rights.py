"""Threads: locks of users without rights on channels."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from tests.redislock._threads import waiting_for
from tools.servers import RedisServer
from ws_redislock.sync import MutexLock
from ws_redislock.sync._coordination.coordinator import coordinator_for


@pytest.fixture
def users(any_redis: RedisServer, any_client: Redis) -> Iterator[tuple[Redis, Redis]]:
    """Yield two clients of a user with all rights but those on channels."""
    any_client.execute_command(
        "ACL", "SETUSER", "mute", "reset", "on", ">secret", "~*", "+@all", "resetchannels"
    )
    login = {"username": "mute", "password": "secret"}

    with Redis.from_url(any_redis.url, **login) as one, Redis.from_url(any_redis.url, **login) as other:
        yield one, other


class TestWithoutChannels:
    """The default rights of a new user."""

    def test_waiters_look_by_themselves(
        self, users: tuple[Redis, Redis], pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
    ):
        """A release is done, and the waiter elsewhere has the lock after its next look; again at once."""
        one, other = users

        for _ in range(2):  # the second time the server is known to refuse the subscription
            first, second = MutexLock(one, "k", 60), MutexLock(other, "k", 60)
            assert first.acquire()
            waiting = pool.submit(second.acquire, 20)
            waiting_for(first)
            assert first.release()
            assert waiting.result()
            assert coordinator_for(other).unsubscribed
            assert second.release()

        assert caplog.text.count("no wake-ups, so waiters look at their locks by themselves") == 1

    def test_a_timeout_holds(self, users: tuple[Redis, Redis], pool: ThreadPoolExecutor):
        """A waiter without wake-ups ends in time, and leaves the queue."""
        one, other = users
        first, second = MutexLock(one, "k", 60), MutexLock(other, "k", 60)
        assert first.acquire()
        began = time.monotonic()
        assert not second.acquire(0.3)
        assert time.monotonic() - began >= 0.3
        second.close()
        assert first.waiters() == 0
        assert first.release()
