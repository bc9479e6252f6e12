"""ORM sessions inside a client's transaction, and the engine that a pool has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import String, func, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tests.pool.sql.backends import BACKENDS, POSTGRES, make_pool, make_requested
from ws_pool import PostgresPool, SqlitePool
from ws_pool._sql.pool import SqlPool
from ws_pool.errors import TransactionConflict, UsageError

SLOW = {
    "mysql": "SELECT SLEEP(5)",
    "postgresql": "SELECT pg_sleep(5)",
    "sqlite": "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT 1 FROM n WHERE x < 0",
}


class Base(DeclarativeBase):
    """The declarations."""


class Item(Base):
    """A thing for sale."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(30))


@pytest.fixture(params=(*BACKENDS, *POSTGRES))
async def pool(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlPool]:
    """A pool of each kind with an empty table."""
    async with make_requested(request, tmp_path) as made:
        await made.create_all(Base.metadata)
        yield made


async def names(pool: SqlPool) -> list[str]:
    """Read what is in the table."""
    return [row.name for row in await pool.select(select(Item.name).order_by(Item.id))]


class TestJoined:
    """``client.orm_session()`` works in the transaction of ``atomic``."""

    async def test_session_and_client_see_each_others_changes(self, pool: SqlPool):
        """Both are one transaction, and all of it is committed together."""
        async with pool.atomic() as client, client.orm_session() as session:
            session.add(Item(name="a"))
            await session.flush()
            assert [row.name for row in await client.select(select(Item.name))] == ["a"]
            await client.insert(Item.__table__, name="b")
            assert [item.name for item in await session.scalars(select(Item).order_by(Item.id))] == ["a", "b"]

        assert await names(pool) == ["a", "b"]
        assert pool.statistics().leased == 0

    async def test_a_session_that_committed_is_undone_with_its_transaction(self, pool: SqlPool):
        """Its commit is that of a savepoint."""
        with pytest.raises(KeyError):
            async with pool.atomic() as client:
                async with client.orm_session() as session:
                    session.add(Item(name="a"))
                    await session.commit()

                raise KeyError

        assert await names(pool) == []

    async def test_a_session_that_failed_is_undone_alone(self, pool: SqlPool):
        """The transaction around it goes on."""
        async with pool.atomic() as client:
            await client.insert(Item.__table__, name="a")

            with pytest.raises(KeyError):
                async with client.orm_session() as session:
                    session.add(Item(name="b"))
                    await session.flush()
                    raise KeyError

            with pytest.raises(DBAPIError):
                async with client.orm_session() as session:
                    await session.execute(text("SELECT nothing FROM nowhere"))

            async with client.orm_session() as session:
                session.add(Item(name="c"))

        assert await names(pool) == ["a", "c"]

    async def test_a_cancelled_session_leaves_nothing(self, pool: SqlPool):
        """Its transaction is undone, in time, and the next users have sound connections."""
        begun = asyncio.Event()

        async def work() -> None:
            async with pool.atomic() as client, client.orm_session() as session:
                session.add(Item(name="a"))
                await session.flush()
                begun.set()
                await session.execute(text(SLOW[session.get_bind().dialect.name]))

        task = asyncio.create_task(work())
        await begun.wait()
        await asyncio.sleep(0.05)
        task.cancel()

        async with asyncio.timeout(5):
            assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
            assert await names(pool) == []

            async with pool.atomic() as client, client.orm_session() as session:
                session.add(Item(name="b"))

        assert await names(pool) == ["b"]

    async def test_outside_a_transaction_it_is_refused(self, pool: SqlPool):
        """There would be nothing to join; nor in a block that only reads."""
        async with pool.get_client() as client:
            with pytest.raises(UsageError, match="no open transaction"):
                await client.orm_session().__aenter__()

        async with pool.atomic() as client, client.begin(read_only=True):
            with pytest.raises(UsageError, match="only reads"):
                await client.orm_session().__aenter__()


@pytest.mark.parametrize("driver", ["aiomysql", "asyncmy", *POSTGRES])
async def test_a_deadlock_in_a_session_is_run_again(
    driver: str, request: pytest.FixtureRequest, tmp_path: Path
):
    """Two transactions that lock two rows crosswise both happen, with retry_deadlocks."""
    if driver in POSTGRES:
        made: SqlPool = PostgresPool(request.getfixturevalue("postgres_url"), driver=driver)
    else:
        made = make_pool(driver, request.getfixturevalue("mysql_url"), tmp_path)

    conflicts: list[TransactionConflict] = []

    async with made as pool:
        await pool.create_all(Base.metadata)
        await pool.insert_many(Item.__table__, [{"id": n, "name": "x"} for n in (1, 2)])
        both = asyncio.Barrier(2)

        @pool.atomic(retry_deadlocks=5)
        async def rename(first: int, second: int) -> None:
            async with pool.get_client() as client:
                try:
                    async with client.orm_session() as session:
                        await touch(session, first)

                        if not conflicts and both.n_waiting < 2:
                            async with asyncio.timeout(10):
                                await both.wait()

                        await touch(session, second)
                except TransactionConflict as error:
                    conflicts.append(error)
                    raise

        async def touch(session: AsyncSession, number: int) -> None:
            await session.execute(update(Item).where(Item.id == number).values(name=Item.name + "x"))

        async with asyncio.timeout(30):
            await asyncio.gather(rename(1, 2), rename(2, 1))

        assert conflicts
        assert await names(pool) == ["xxx", "xxx"]


class TestEngine:
    """A pool has one engine."""

    async def test_it_is_the_same_each_time(self, pool: SqlPool):
        """With options it is another one."""
        assert pool.engine() is pool.engine()
        assert pool.engine(read_only=True) is pool.engine(read_only=True)
        assert pool.engine() is not pool.engine(read_only=True)
        assert pool.engine(echo=False) is not pool.engine()

    async def test_a_reading_engine_changes_nothing(self, pool: SqlPool):
        """The server refuses changes, and the next user of the connection may write."""
        async with AsyncSession(pool.engine(read_only=True)) as session:
            assert (await session.execute(select(func.count(Item.id)))).scalar() == 0

            with pytest.raises(DBAPIError):
                await session.execute(text("INSERT INTO item (name) VALUES ('a')"))

        async with AsyncSession(pool.engine()) as session:
            session.add(Item(name="b"))
            await session.commit()

        assert await names(pool) == ["b"]


class TestOneWriter:
    """A SQLite database has one connection that writes; no task waits for itself."""

    @pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite:///{}/one.db"])
    async def test_a_write_inside_an_orm_session_of_the_task_fails_at_once(self, url: str, tmp_path: Path):
        """The message names the remedy; another task's write waits for the session."""
        async with SqlitePool(url.format(tmp_path)) as pool:
            await pool.create_all(Base.metadata)

            async with asyncio.timeout(5), AsyncSession(pool.engine()) as session:
                session.add(Item(name="a"))
                await session.flush()

                with pytest.raises(UsageError, match="orm_session"):
                    await pool.insert(Item.__table__, name="b")

                other = asyncio.create_task(pool.insert(Item.__table__, name="c"))
                await asyncio.sleep(0)
                await session.commit()

            await other
            assert await names(pool) == ["a", "c"]

    async def test_an_orm_session_inside_a_transaction_of_the_task_fails_at_once(self, tmp_path: Path):
        """It would wait for the connection that its own task has."""
        async with SqlitePool(path=str(tmp_path / "one.db")) as pool, asyncio.timeout(5):
            await pool.create_all(Base.metadata)

            async with pool.atomic() as client:
                await client.insert(Item.__table__, name="a")

                with pytest.raises(UsageError, match="orm_session"):
                    async with AsyncSession(pool.engine()) as session:
                        await session.execute(select(Item))

    async def test_reading_sessions_run_beside_a_writer(self, tmp_path: Path):
        """They are on the readers of the file."""
        async with SqlitePool(path=str(tmp_path / "one.db")) as pool, asyncio.timeout(5):
            await pool.create_all(Base.metadata)

            async with pool.atomic() as client:
                await client.insert(Item.__table__, name="a")

                async with AsyncSession(pool.engine(read_only=True)) as session:
                    found: Any = await session.execute(select(func.count(Item.id)))
                    assert found.scalar() == 0
