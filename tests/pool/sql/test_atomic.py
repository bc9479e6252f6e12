"""Transactions: whole or not at all, whatever happens in them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests.pool.sql._accounts import ACCOUNT, ADD, BACKENDS, METADATA, accounts, balance, total
from ws_pool import MysqlPool, SqlitePool, atomic, sql_pool_manager
from ws_pool._sql.pool import SqlPool
from ws_pool.errors import QueryError, TransactionConflict, UsageError


@pytest.fixture(params=BACKENDS)
async def pool(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlPool]:
    """A pool with ten accounts of 100 each."""
    async with accounts(request, tmp_path) as pool:
        yield pool


class TestBlocks:
    """Commit, rollback, savepoints."""

    async def test_a_block_commits_at_its_end_and_not_before(self, pool: SqlPool):
        """Others see a change when the block has ended."""
        async with atomic(pool) as client:
            assert client.in_transaction
            await client.update(ADD, which=1, much=5)
            assert await balance(pool, 1) == 100

        assert await balance(pool, 1) == 105

    async def test_an_error_rolls_back(self, pool: SqlPool):
        """A block that raises leaves nothing."""
        with pytest.raises(ZeroDivisionError):
            async with atomic(pool) as client:
                await client.update(ADD, which=1, much=5)
                _ = 1 / 0

        assert await balance(pool, 1) == 100

    @pytest.mark.parametrize("moment", ["between", "during"])
    async def test_a_cancelled_block_rolls_back(self, pool: SqlPool, moment: str):
        """A task that is cancelled in its block, in mid-statement or between two, leaves nothing."""
        inside = asyncio.Event()

        async def work() -> None:
            async with atomic(pool) as client:
                await client.update(ADD, which=1, much=5)
                inside.set()

                if moment == "between":
                    await asyncio.Event().wait()

                while True:
                    await client.select(select(ACCOUNT))

        task = asyncio.create_task(work())
        await inside.wait()
        await asyncio.sleep(0)
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

        async with asyncio.timeout(10), atomic(pool) as client:
            await client.update(ADD, which=1, much=1)

        assert await balance(pool, 1) == 101

    async def test_an_inner_block_is_a_savepoint(self, pool: SqlPool):
        """An inner error undoes the inner block only; an outer one undoes both."""
        async with atomic(pool) as client:
            await client.update(ADD, which=1, much=1)

            with pytest.raises(ValueError, match="inner"):
                async with atomic(pool) as same:
                    assert same is client
                    await client.update(ADD, which=1, much=10)
                    message = "inner"
                    raise ValueError(message)

            async with client.begin():
                await client.update(ADD, which=2, much=7)

        assert (await balance(pool, 1), await balance(pool, 2)) == (101, 107)

        with pytest.raises(ValueError, match="outer"):
            async with atomic(pool) as client:
                async with atomic(pool):
                    await client.update(ADD, which=1, much=10)

                message = "outer"
                raise ValueError(message)

        assert await balance(pool, 1) == 101

    async def test_an_inner_block_without_savepoint_is_part_of_the_outer(self, pool: SqlPool):
        """With savepoint=False an inner error that is caught outside does not undo the inner block."""
        async with atomic(pool) as client:
            with pytest.raises(ValueError, match="x"):
                async with atomic(pool, savepoint=False):
                    await client.update(ADD, which=1, much=10)
                    message = "x"
                    raise ValueError(message)

        assert await balance(pool, 1) == 110

    async def test_a_transaction_can_end_early_once(self, pool: SqlPool):
        """commit() and rollback() end a transaction before its block does, and only once."""
        async with pool.get_client() as client:
            async with client.begin() as transaction:
                await client.update(ADD, which=1, much=1)
                await transaction.commit()
                assert not transaction.open
                assert not client.in_transaction

                with pytest.raises(UsageError, match="has ended"):
                    await transaction.rollback()

            async with client.begin() as transaction:
                await client.update(ADD, which=1, much=1)
                await transaction.rollback()

        assert await balance(pool, 1) == 101

    async def test_a_transaction_that_is_never_ended_is_rolled_back(self, pool: SqlPool):
        """A transaction whose block was entered by hand and forgotten ends with the client's block."""
        async with pool.get_client() as client:
            await client.begin().__aenter__()
            await client.update(ADD, which=1, much=5)

        async with asyncio.timeout(10), atomic(pool) as client:
            await client.update(ADD, which=1, much=1)

        assert await balance(pool, 1) == 101

    async def test_isolation_and_read_only(self, pool: SqlPool):
        """An isolation level counts for one transaction; a read-only one refuses changes."""
        level = "SERIALIZABLE" if isinstance(pool, SqlitePool) else "read_committed"

        async with atomic(pool, isolation=level) as client:
            await client.update(ADD, which=1, much=1)

            async with atomic(pool, isolation=level):
                await client.update(ADD, which=1, much=1)

            async with client.begin(isolation=level):
                pass

        assert await balance(pool, 1) == 102

        with pytest.raises(QueryError):
            async with atomic(pool, read_only=True) as client:
                await client.update(ADD, which=1, much=1)

        assert await balance(pool, 1) == 102

        with pytest.raises(UsageError, match="no isolation level"):
            async with atomic(pool, isolation="CHAOS"):
                pass

        async with pool.get_client(read_only=True) as client, client.begin():
            assert await client.count(ACCOUNT) == 10

            with pytest.raises(UsageError, match="only reads"):
                await client.update(ADD, which=1, much=1)

    async def test_an_inner_block_has_the_isolation_that_it_asks_for(self, pool: SqlPool):
        """When the transaction around it has another one, or one that nobody asked for, it is an error."""

        @atomic(pool, isolation="SERIALIZABLE")
        async def serializable() -> int:
            (found,) = await pool.select(select(ACCOUNT.c.balance).where(ACCOUNT.c.id == 1))
            return int(found.balance)

        if isinstance(pool, SqlitePool):  # whose transactions are all serializable
            async with atomic(pool):
                assert await serializable() == 100

            return

        for outer, shown in ((None, "the isolation of its session"), ("READ COMMITTED", "READ COMMITTED")):
            async with atomic(pool, isolation=outer) as client:
                with pytest.raises(UsageError, match=f"asks for SERIALIZABLE, and .* has {shown}.*outermost"):
                    await serializable()

                with pytest.raises(UsageError, match="outermost"):
                    await client.begin(isolation="SERIALIZABLE", savepoint=False).__aenter__()

                await client.update(ADD, which=1, much=1)

        async with atomic(pool, isolation="SERIALIZABLE"):
            assert await serializable() == 102

        async with pool.get_client() as client, client.begin():  # nothing is left of the last one
            with pytest.raises(UsageError, match="outermost"):
                await serializable()

    @pytest.mark.parametrize("level", ["SNAPSHOT", "", 5, True, ["SERIALIZABLE"]])
    async def test_an_unknown_isolation_is_refused(self, pool: SqlPool, level: Any):
        """The error names those there are."""
        async with pool.get_client() as client:
            with pytest.raises(UsageError, match="use one of READ COMMITTED"):
                client.begin(isolation=level)

    async def test_an_inner_block_that_only_reads_refuses_changes(self, pool: SqlPool):
        """read_only is honoured inside of a transaction that writes, for that block and those in it."""
        async with atomic(pool) as client:
            await client.update(ADD, which=1, much=1)

            for savepoint in (True, False):
                async with atomic(pool, read_only=True, savepoint=savepoint):
                    assert await client.count(ACCOUNT) == 10

                    async with atomic(pool), atomic(pool, read_only=True):
                        pass

                    with pytest.raises(UsageError, match="this block only reads, and UPDATE may change"):
                        await pool.update(ADD, which=1, much=10)

            await client.update(ADD, which=1, much=1)

        assert await balance(pool, 1) == 102

    async def test_a_database_in_memory_has_the_same_options(self):
        """Isolation and read_only mean the same where all share one connection."""
        async with SqlitePool("sqlite:///:memory:") as pool:
            await pool.create_all(METADATA)

            async with atomic(pool, isolation="SERIALIZABLE"):
                await pool.insert(ACCOUNT, owner="a", balance=1)

            with pytest.raises(UsageError, match="only reads"):
                async with atomic(pool, read_only=True):
                    assert await pool.count(ACCOUNT) == 1
                    await pool.insert(ACCOUNT, owner="b", balance=1)

            with pytest.raises(UsageError, match="no isolation level"):
                async with atomic(pool, isolation="READ COMMITTED"):
                    pass

            await pool.insert(ACCOUNT, owner="c", balance=1)
            assert await pool.count(ACCOUNT) == 2


class TestDecorator:
    """Functions that happen as a whole."""

    async def test_a_decorated_function_is_a_transaction(self, pool: SqlPool):
        """Its result is passed through, its error rolls back, and shortcuts inside use its connection."""

        @atomic(pool)
        async def move(source: int, target: int, much: int) -> int:
            await pool.update(ADD, which=source, much=-much)
            await pool.update(ADD, which=target, much=much)

            if much > 100:
                message = "too much"
                raise ValueError(message)

            return much

        assert await move(1, 2, 30) == 30

        with pytest.raises(ValueError, match="too much"):
            await move(1, 2, 300)

        assert (await balance(pool, 1), await balance(pool, 2)) == (70, 130)
        assert move.__name__ == "move"

    async def test_names_are_looked_up_when_the_function_runs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """Functions can be decorated before anything is configured; without a name it is "default"."""
        for state, unused in {"_config": {}, "_pools": {}, "_ready": False, "_starting": None}.items():
            monkeypatch.setattr(sql_pool_manager, state, unused)  # whatever else this process has used it for

        @atomic
        async def plain() -> int:
            return int(await sql_pool_manager.insert(ACCOUNT, owner="a", balance=1))

        @atomic("other")
        async def other() -> int:
            return int(await sql_pool_manager.insert(ACCOUNT, owner="b", balance=2, pool_name="other"))

        with pytest.raises(UsageError, match="has no pools, so none is named 'default'"):
            await plain()

        path = tmp_path / "named"
        sql_pool_manager.register({"default": f"sqlite:///{path}1.db", "other": f"sqlite:///{path}2.db"})

        try:
            await sql_pool_manager

            for name in ("default", "other"):
                await sql_pool_manager.get_pool(name).create_all(METADATA)

            assert (await plain(), await other()) == (1, 1)
            assert await sql_pool_manager.count(ACCOUNT, pool_name="other") == 1
            assert (await sql_pool_manager.select(select(ACCOUNT)))[0].owner == "a"
        finally:
            await sql_pool_manager.close()

    async def test_blocks_cannot_be_retried(self, pool: SqlPool):
        """retry_deadlocks is for functions, since a block cannot be run again."""
        with pytest.raises(UsageError, match="as a decorator"):
            async with atomic(pool, retry_deadlocks=3):
                pass

    @pytest.mark.parametrize("times", [-1, 1.5, "3", None, True])
    async def test_repeats_are_a_number(self, pool: SqlPool, times: Any):
        """Before anything is decorated."""
        with pytest.raises(UsageError, match="retry_deadlocks is a number of times from 0"):
            atomic(pool, retry_deadlocks=times)

    async def test_what_is_not_a_coroutine_function(self, pool: SqlPool):
        """Generators are refused at once, other functions when they return."""

        async def numbers() -> AsyncIterator[int]:
            yield 1

        def plain() -> int:
            return 1

        with pytest.raises(UsageError, match="numbers is a generator"):
            atomic(pool)(numbers)  # type: ignore[arg-type]  # so it is wrong

        with pytest.raises(UsageError, match=r"plain.* is not one"):
            await atomic(pool)(plain)()  # type: ignore[arg-type]  # as above

        async def double(number: int) -> int:
            return 2 * number

        assert await atomic(pool)(partial(double, 4))() == 8


class TestConflicts:
    """Deadlocks."""

    async def test_fifty_concurrent_transfers_keep_the_sum(self, pool: SqlPool):
        """Fifty tasks that move money between few accounts, in both directions, lose and make none."""
        attempts = 0

        @atomic(pool, retry_deadlocks=50)
        async def transfer(source: int, target: int, much: int) -> None:
            nonlocal attempts
            attempts += 1
            await pool.update(ADD, which=source, much=-much)
            await asyncio.sleep(0.001)
            await pool.update(ADD, which=target, much=much)

        rng = random.Random(7)
        pairs = [rng.sample(range(1, 5), 2) for _ in range(50)]
        await asyncio.gather(*(transfer(a, b, rng.randint(1, 9)) for a, b in pairs))
        assert await total(pool) == 1000

        if isinstance(pool, MysqlPool):
            assert attempts > 50, "there was no deadlock to be survived"

    async def test_a_deadlock_dooms_its_transaction(self, pool: SqlPool):
        """After a deadlock nothing more can run in the transaction, even when the error is caught."""
        if isinstance(pool, SqlitePool):
            pytest.skip("SQLite has one writer, and no deadlocks between connections of one pool")

        ready = [asyncio.Event(), asyncio.Event()]
        conflicts: list[str] = []

        async def cross(mine: int) -> None:
            first, second = (1, 2) if mine == 0 else (2, 1)

            try:
                async with atomic(pool) as client:
                    await client.update(ADD, which=first, much=1)
                    ready[mine].set()
                    await ready[1 - mine].wait()

                    try:
                        async with client.begin():
                            await client.update(ADD, which=second, much=1)
                    except TransactionConflict:
                        with pytest.raises(TransactionConflict, match="run it again"):
                            await client.update(ADD, which=3, much=1000)

                        conflicts.append("inside")
            except TransactionConflict:
                conflicts.append("outside")

        await asyncio.gather(cross(0), cross(1))
        assert conflicts == ["inside", "outside"]
        assert await balance(pool, 3) == 100
        assert await total(pool) == 1002

    async def test_a_conflict_is_not_retried_unless_asked_for(self, pool: SqlPool):
        """Without retry_deadlocks, and inside an outer transaction, a conflict comes through at once."""
        runs = 0

        def conflicting(retries: int) -> Any:
            @atomic(pool, retry_deadlocks=retries)
            async def run() -> None:
                nonlocal runs
                runs += 1
                message = "deadlock"
                raise TransactionConflict(message, errno=1213)

            return run

        for retries, expected in ((0, 1), (3, 4)):
            runs = 0

            with pytest.raises(TransactionConflict):
                await conflicting(retries)()

            assert runs == expected

        runs = 0

        with pytest.raises(TransactionConflict):
            async with atomic(pool):
                await conflicting(5)()

        assert runs == 1
