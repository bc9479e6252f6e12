"""Threads: elections, limiters, several locks, and clients of their own."""

from __future__ import annotations

import logging

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.redislock._threads import unreachable
from tests.servers import StartServer
from tools.servers import RedisServer
from ws_redislock.errors import LockNotAcquired, UnavailableError
from ws_redislock.sync import (
    FrequencyLimiter,
    LeaderElection,
    MultiLock,
    MutexLock,
    leader,
)
from ws_redislock.sync._concurrency import gather

HOLDERS = "wsl:m:{k}:holders"
AT_ONCE = Retry(NoBackoff(), 0)
NOWHERE = "redis://127.0.0.1:1/0"


class TestElection:
    """Terms of office."""

    def test_lost_in_the_block(self, client: Redis):
        """The loss that the block found itself ends the block silently; another's loss comes out."""
        with LeaderElection(client, "l", lease=60) as election:
            with next(election) as term:
                assert election.depose()
                term.wait_over()
                term.check()
                pytest.fail("went on")

            term = next(election)

            with term:
                assert election.depose()
                term.wait_over()

            assert not term.leading

    def test_stands_again(
        self, client: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ):
        """A candidate that was refused for now stands again."""
        client.config_set("maxmemory", 1)
        election = LeaderElection(client, "l", lease=60)
        pauses = list[float]()

        def rest(seconds: float) -> None:
            pauses.append(seconds)
            client.config_set("maxmemory", 0)

        monkeypatch.setattr(leader, "sleep", rest)

        try:
            assert next(election).leading
        finally:
            client.config_set("maxmemory", 0)

        assert len(pauses) == 1
        assert "stands again" in caplog.text
        election.close()

    def test_refused_credentials_are_told(self, start_server: StartServer):
        """A wrong password ends the candidature."""
        server = start_server(RedisServer, config={"requirepass": "right"})

        with (
            Redis(host=server.host, port=server.port, password="wrong", retry=AT_ONCE) as client,
            pytest.raises(UnavailableError),
        ):
            next(LeaderElection(client, "l", lease=60))


class TestLimiter:
    """Limiters without a server, and on clients of their own."""

    def test_peek_without_a_server(self):
        """A look that is not answered says that the policy decided."""
        with FrequencyLimiter(NOWHERE, 60, 3, on_error="open", timeout=0.05) as limiter:
            verdict = limiter.peek("k")

        assert (verdict.allowed, verdict.degraded) == (True, True)

    def test_raises_without_a_server(self):
        """By default a hit that is not answered is an error."""
        with FrequencyLimiter(NOWHERE, 60, 3, timeout=0.05) as limiter, pytest.raises(UnavailableError):
            limiter.hit("k")

    def test_leaves_the_users_client_open(self, client: Redis):
        """Closing a limiter closes nothing that it did not make."""
        with FrequencyLimiter(client, 60, 3) as limiter:
            assert limiter.hit("k").remaining == 2

        assert client.ping()


class TestOwnClients:
    """Locks made from a URL."""

    def test_a_block_closes_its_client(self, redis_url: str):
        """After a block, and after one that was not entered, the own client is closed."""
        one, other = MutexLock(redis_url, "k", 60), MutexLock(redis_url, "k", 60)

        with one.hold():
            assert one._owned is not None

            with pytest.raises(LockNotAcquired):
                other.hold(0).__enter__()

        assert one._owned is None
        assert other._owned is None
        other.close()

    def test_an_error_closes_it_too(self):
        """So does an acquisition without a server."""
        lock = MutexLock(NOWHERE, "k", 0.5)

        with pytest.raises(UnavailableError):
            lock.hold(0.1).__enter__()

        assert lock._owned is None

    def test_several_share_one(self, redis_url: str, client: Redis):
        """Several names work on one client, which the end of the block closes."""
        lock = MultiLock(redis_url, ["a", "b"], 60)

        for _ in range(2):
            with lock.hold():
                first, second = (part._coordinator for part in lock._locks)
                assert first is second
                assert MutexLock(client, "b").exists()

        assert lock._locks[0]._owned is None
        assert not MutexLock(client, "b").exists()

        with MutexLock(client, "b").hold(), pytest.raises(LockNotAcquired):
            lock.hold(0).__enter__()

        unreachable_lock = MultiLock(NOWHERE, ["a", "b"], 0.5)

        with pytest.raises(UnavailableError):
            unreachable_lock.hold(0.1).__enter__()

        assert unreachable_lock._locks[0]._owned is None


class TestSeveral:
    """Errors of several names."""

    def test_all_are_asked(self):
        """An error of one does not keep the others from being asked."""
        first, last = gather([lambda: 1 // 0, lambda: 2])
        assert isinstance(first, ZeroDivisionError)
        assert last == 2

    @pytest.mark.parametrize("step", ["release", "close"])
    def test_an_error_comes_out(self, client: Redis, monkeypatch: pytest.MonkeyPatch, step: str):
        """When one cannot be released the others are, and the error is raised."""
        lock = MultiLock(client, ["a", "b"], 60)
        assert lock.acquire()

        with monkeypatch.context() as patch:
            patch.setattr(lock._locks[1], step, unreachable)

            with pytest.raises(ConnectionError, match="gone"):
                getattr(lock, step)()

        assert not MutexLock(client, "a").exists()
        assert MutexLock(client, "b").exists()
        lock.close()

    def test_a_block_that_cannot_give_back(
        self, client: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ):
        """The block's work counts: that the release was not answered is logged only."""

        def silent() -> bool:
            raise UnavailableError("no answer")

        lock = MultiLock(client, ["a", "b"], 60)

        with caplog.at_level(logging.WARNING, logger="ws_redislock"), lock.hold():
            part = lock._locks[1]
            release = part.release
            monkeypatch.setattr(part, "release", silent)

        assert "no answer" in caplog.text
        assert release()
