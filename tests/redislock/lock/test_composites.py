"""What is built from locks: several at once, elections, claims, fencing, observers."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import pytest
from redis.asyncio import Redis

from ws_redislock import (
    LeaderElection,
    LockLost,
    LockNotAcquired,
    MultiLock,
    MutexLock,
    RunClaims,
    Term,
)
from ws_redislock.errors import ConfigError, UnavailableError, UsageError
from ws_redislock.fencing import check_written, guarded_update


class TestMultiLock:
    """Several names, all or none."""

    async def test_holds_all(self, redis: Redis):
        """All names are held, in the order of their names, each with its fence."""
        async with MultiLock(redis, ["b", "a", "b"], 60) as lock:
            assert lock.names == ("a", "b")
            assert await lock.acquire()
            assert lock.locked
            lock.check()
            assert set(lock.fences) == {"a", "b"}
            assert not await MutexLock(redis, "a", 60).acquire()
            assert not await MutexLock(redis, "b", 60).acquire()

        assert not await MutexLock(redis, "a", 60).exists()

    async def test_all_or_none(self, redis: Redis):
        """When one is taken, none is kept."""
        async with MutexLock(redis, "b", 60).hold():
            lock = MultiLock(redis, ["a", "b", "c"], 60)
            assert not await lock.acquire()
            assert not await lock.acquire(timeout=0.5)
            assert await MutexLock(redis, "a", 60).owner() is None

            with pytest.raises(LockNotAcquired):
                await lock.hold(timeout=0).__aenter__()

    async def test_never_in_a_circle(self, redis: Redis):
        """Users that name the same locks in different orders do not wait for each other for ever."""
        count = 0

        async def work(*names: str) -> None:
            nonlocal count
            async with MultiLock(redis, names, 60).hold() as fences:
                assert len(fences) == 2
                seen = count
                await asyncio.sleep(0)
                count = seen + 1

        async with asyncio.timeout(30):
            await asyncio.gather(*(work(*(("a", "b") if n % 2 else ("b", "a"))) for n in range(20)))

        assert count == 20

    async def test_losing_one_loses_all(self, redis: Redis):
        """The block is cancelled when one of the leases is lost; the others are given back."""
        lock = MultiLock(redis, ["a", "b"], 60)

        async def body() -> None:
            async with lock.hold():
                await MutexLock(redis, "b", 60).force_release()
                await asyncio.sleep(30)

        with pytest.raises(LockLost, match="'b'"):
            await body()

        assert not await MutexLock(redis, "a", 60).exists()

    async def test_cancelled_in_the_middle(self, redis: Redis):
        """Cancelled while it waits for the second, it releases the first."""
        async with MutexLock(redis, "b", 60).hold():
            lock = MultiLock(redis, ["a", "b"], 60)
            task = asyncio.create_task(lock.acquire(None))
            first = MutexLock(redis, "a", 60)

            while not await first.exists():
                await asyncio.sleep(0)

            task.cancel()

            with pytest.raises(asyncio.CancelledError):
                await task

            await lock.aclose()
            assert not await first.exists()

    def test_names_that_cannot_be(self):
        """There must be names, and a string is one name."""
        with pytest.raises(ConfigError, match="at least one"):
            MultiLock("redis://localhost:6379/0", [])

        with pytest.raises(ConfigError, match="use MutexLock"):
            MultiLock("redis://localhost:6379/0", "abc")

        assert repr(MultiLock("redis://localhost:6379/0", ["b", "a"])) == "<MultiLock 'a', 'b'>"


class TestLeaderElection:
    """Terms of office."""

    async def test_one_leads_at_a_time(self, redis: Redis):
        """Candidates lead one after the other, each term with a larger fence."""
        fences: list[int] = []
        leading = 0

        async def stand() -> None:
            nonlocal leading
            async with LeaderElection(redis, "l", lease=60) as election:
                async for term in election:
                    async with term:
                        leading += 1
                        assert leading == 1
                        assert term.leading
                        assert election.leading
                        term.check()
                        fences.append(term.fence)
                        await asyncio.sleep(0)
                        leading -= 1

                    break

        await asyncio.gather(*(stand() for _ in range(5)))
        assert fences == sorted(set(fences))
        assert len(fences) == 5

    async def test_a_lost_term_is_followed_by_the_next(self, redis: Redis):
        """Losing office ends the block silently, and the same candidate stands again."""
        terms: list[Term] = []

        async with LeaderElection(redis, "l", lease=60) as election:
            async for term in election:
                terms.append(term)

                if len(terms) == 2:
                    break

                async with term:
                    assert await election.leader() is not None
                    assert await election.depose()
                    await term.wait_over()
                    await asyncio.sleep(30)

            assert terms[0].fence < terms[1].fence
            assert not terms[0].leading

            with pytest.raises(LockLost):
                terms[0].check()

        assert repr(election) == "<LeaderElection 'l'>"

    async def test_the_blocks_error_passes(self, redis: Redis):
        """What a leader's block raises comes out, and office is free again."""
        election = LeaderElection(redis, "l", lease=60)
        term = await anext(election)
        error = ZeroDivisionError()

        with pytest.raises(ZeroDivisionError):
            async with term:
                raise error

        assert await election.leader() is None

    async def test_is_apart_from_a_mutex(self, redis: Redis):
        """An election and a mutex of the same name have nothing to do with each other."""
        async with MutexLock(redis, "l", 60).hold():
            async with asyncio.timeout(5):
                term = await anext(LeaderElection(redis, "l"))

            async with term:
                pass


class TestRunClaims:
    """The guard of schedulers."""

    async def test_one_of_many(self, redis: Redis):
        """Of many that claim a run at the same time, one gets it."""
        async with RunClaims(redis) as claims:
            assert sum(await asyncio.gather(*(claims.claim("run", 60) for _ in range(50)))) == 1
            await claims.give_back("run")
            assert await claims.claim("run", 60)
            assert await RunClaims(redis, namespace="other").claim("run", 60)
            assert {await redis.pttl(key) > 0 for key in await redis.keys("*")} == {True}

    async def test_gives_back_only_its_own(self, redis: Redis):
        """Given back late, a claim that another has by now stays with the other."""
        slow, other = RunClaims(redis), RunClaims(redis)
        assert await slow.claim("run", 0.001)

        while not await other.claim("run", 60):
            await asyncio.sleep(0.001)

        await slow.give_back("run")
        assert not await slow.claim("run", 60)
        await other.give_back("run")
        assert await slow.claim("run", 60)

    async def test_a_lost_reply_does_not_lose_the_claim(self, redis: Redis):
        """The same claim, asked again, is still ours."""
        claims = RunClaims(redis)
        call = claims._bind().call
        seen = []

        async def twice(*args: Any, **options: Any) -> object:  # as `call` takes them
            seen.append(await call(*args, **options))
            return await call(*args, **options)

        class Twice:
            call = staticmethod(twice)

        claims._scripts = Twice()  # type: ignore[assignment]
        assert await claims.claim("run", 60)
        assert seen[0][1] == [1]

    @pytest.mark.parametrize("ttl", [0, -1, float("nan"), True, "1"])
    async def test_a_time_that_cannot_be(self, redis7: Redis, ttl: object):
        """The time is a number above zero."""
        with pytest.raises(ConfigError, match="ttl"):
            await RunClaims(redis7).claim("run", ttl)  # type: ignore[arg-type]

    async def test_owns_the_client_of_a_url(self):
        """Made from a URL it closes its client; without a server it says so."""
        async with RunClaims("redis://127.0.0.1:1/0", timeout=0.05) as claims:
            with pytest.raises(UnavailableError, match="claim 'run'"):
                await claims.claim("run", 60)

    async def test_another_loop(self, redis7: Redis):
        """Use from another event loop is refused."""
        claims = RunClaims(redis7)
        await claims.claim("run", 60)

        def elsewhere() -> None:
            with pytest.raises(UsageError, match="another event loop"):
                asyncio.run(claims.claim("run", 60))

        await asyncio.to_thread(elsewhere)


class TestFencing:
    """The SQL guard."""

    def test_refuses_a_late_write(self):
        """A write with a smaller fence changes nothing, and is reported as a loss."""
        db = sqlite3.connect(":memory:")
        db.execute("CREATE TABLE stock (id INTEGER PRIMARY KEY, amount INTEGER, fence INTEGER DEFAULT 0)")
        db.execute("INSERT INTO stock (id, amount) VALUES (7, 100)")
        statement = guarded_update("stock", ["amount"], key="id")
        check_written(db.execute(statement, {"amount": 1, "id": 7, "fence": 5}).rowcount, name="k", fence=5)

        for fence in (4, 5):
            rows = db.execute(statement, {"amount": 2, "id": 7, "fence": fence}).rowcount

            with pytest.raises(LockLost, match="was refused"):
                check_written(rows, name="k", fence=fence)

        again = guarded_update("stock", ["amount"], key="id", again=True)
        assert db.execute(again, {"amount": 3, "id": 7, "fence": 5}).rowcount == 1
        db.close()

    @pytest.mark.parametrize("name", ["stock; DROP TABLE x", "", "1a", "a b", "a.b.c"])
    def test_takes_plain_names_only(self, name: str):
        """Nothing but identifiers comes into the statement."""
        with pytest.raises(ConfigError, match="not a plain SQL name"):
            guarded_update(name, ["amount"], key="id")

        with pytest.raises(ConfigError, match="not a plain SQL name"):
            guarded_update("stock", [name], key="id")

    def test_needs_a_column(self):
        """An update that sets nothing is a mistake."""
        with pytest.raises(ConfigError, match="at least one column"):
            guarded_update("stock", [], key="id")
