"""Threads: listing locks, and taking them away by name."""

from __future__ import annotations

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from tests.redislock._helpers import cluster_client
from tests.redislock._threads import until
from ws_redislock.errors import ConfigError, UnavailableError
from ws_redislock.sync import FrequencyLimiter, LeaderElection, MutexLock, ReadWriteLock, RunClaims, Semaphore
from ws_redislock.sync.admin import list_locks, reset_lock


class TestListLocks:
    """Which locks there are."""

    def test_of_all_kinds(self, client: Redis):
        """Each kind is listed with its holders; nothing else is."""
        assert FrequencyLimiter(client, 60, 2).is_limited("k") is False
        assert RunClaims(client).claim("run", 60)

        with (
            MutexLock(client, "k", 60).hold() as held,
            ReadWriteLock(client, "k", 60).write().hold(),
            Semaphore(client, "k", 2, 60).hold(),
            LeaderElection(client, "k", lease=60) as election,
        ):
            next(election)
            found = list_locks(client)
            assert [lock.kind for lock in found] == ["election", "mutex", "read_write", "semaphore"]
            assert list(found[1].holders) == [held.token]
            assert (found[1].fence, found[1].waiters) == (held.fence, 0)
            assert len(list_locks(client, "?", limit=2)) == 2
            assert list_locks(client, "other*") == []

        assert list_locks(client) == []

    def test_what_is_none(self, client: Redis, redis_url: str):
        """Keys that look like those of a lock, and what a holder has left behind, are passed over."""
        client.zadd("wsl:m:{left}:holders", {"x1": 1})
        client.set("wsl:z:{other}:holders", 1)
        client.set("wsl:m:{other}:hints", 1)

        with (
            Redis.from_url(redis_url, decode_responses=True) as text,
            MutexLock(text, "k", 60).hold() as held,
        ):
            assert [(found.name, list(found.holders)) for found in list_locks(text)] == [("k", [held.token])]

    def test_a_key_of_another_type(self, client: Redis):
        """A mistake in the data stays the error that it is."""
        client.set("wsl:m:{k}:holders", "rubbish")

        with pytest.raises(ResponseError, match="WRONGTYPE"):
            list_locks(client)

    def test_in_a_cluster(self, cluster_url: str):
        """Locks are found on all nodes."""
        with cluster_client(cluster_url) as client:
            locks = [MutexLock(client, f"k{number}", 60) for number in range(12)]
            assert all(lock.acquire() for lock in locks)
            assert {lock.name for lock in list_locks(client)} == {lock.name for lock in locks}
            assert all(lock.release() for lock in locks)

    def test_a_client_of_its_own(self, client: Redis, redis_url: str):
        """One that was made from a URL is closed."""
        lock = MutexLock(client, "k", 60)
        assert lock.acquire()
        before = len(client.client_list())
        assert [found.name for found in list_locks(redis_url)] == ["k"]
        assert reset_lock(redis_url, "k")
        assert not reset_lock(redis_url, "k")
        until(lambda: len(client.client_list()) <= before)
        assert not lock.release()

    def test_errors(self, client: Redis):
        """What cannot work is refused, and silence is named."""
        with pytest.raises(ConfigError, match="limit must be"):
            list_locks(client, limit=0)

        with pytest.raises(ConfigError, match="kind must be"):
            reset_lock(client, "k", "lock")  # type: ignore[arg-type]

        with pytest.raises(UnavailableError, match="did not answer SCAN"):
            list_locks("redis://127.0.0.1:1/0")

    def test_refused(self, client: Redis, redis_url: str):
        """The error names the command, and where the rights are listed."""
        client.execute_command(
            "ACL", "SETUSER", "viewer", "reset", "on", ">secret", "~*", "+scan", "+evalsha"
        )

        with (
            MutexLock(client, "k", 60).hold(),
            Redis.from_url(redis_url, username="viewer", password="secret") as viewer,
            pytest.raises(UnavailableError, match=r"refused DESCRIBE.*under 'Rights'"),
        ):
            list_locks(viewer)
