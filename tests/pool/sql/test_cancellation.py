"""Seeded cancellations over real drivers: no reply crosses over, no block is half done, nothing is lost."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.pool.sql.backends import POSTGRES
from ws_pool import MysqlPool, PostgresPool, SqlitePool
from ws_pool._sql.client import SqlClient
from ws_pool._sql.pool import SqlPool
from ws_pool.errors import UnavailableError

BACKENDS = ("aiomysql", "asyncmy", "sqlite", "memory", "asyncpg", "psycopg")
USERS = 8
ROUNDS, SOAK_ROUNDS = 40, 800  # of each user; most of them are cancelled
HALF = Table("half", MetaData(), Column("token", Integer), Column("part", Integer))
RUNNING = {
    "mysql": "SELECT COUNT(*) FROM information_schema.processlist "
    "WHERE command = 'Query' AND id <> CONNECTION_ID() AND db = DATABASE()",
    "postgresql": "SELECT COUNT(*) FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid() "
    "AND backend_type = 'client backend' AND datname = current_database()",
}
NUMBERS = (
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 50) "
    "SELECT x + CAST(:token AS DECIMAL) FROM n"
)


def make(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> SqlPool:
    """Make a pool that is too small for its users."""
    if backend == "memory":
        return SqlitePool("sqlite://")

    if backend == "sqlite":
        return SqlitePool(path=str(tmp_path / "x.db"), max_size=3)

    if backend in POSTGRES:
        return PostgresPool(request.getfixturevalue("postgres_url"), driver=backend, max_size=3)

    return MysqlPool(request.getfixturevalue("mysql_url"), driver=backend, max_size=3)


class Users:
    """Tasks that use a pool in all ways, and are cancelled at any moment."""

    def __init__(self, pool: SqlPool, seed: int) -> None:
        self.pool = pool
        self.rng = random.Random(seed)
        self.tokens = 0
        self.answered = 0
        self.cancelled = 0
        self.committed: set[int] = set()
        self.handle = pool.prepare(text("SELECT CAST(:token AS DECIMAL) AS token"))

    async def ask(self, token: int) -> None:
        """Ask for something that nobody else asks for."""
        async with self.pool.get_client() as client:
            for _ in range(3):
                assert (
                    await client.find("SELECT CAST(:token AS DECIMAL) AS token", token=token)
                ).token == token

        self.answered += 1

    async def read(self, token: int) -> None:
        """Read many rows, as they come."""
        async with self.pool.get_client() as client:
            rows = client.iterate(NUMBERS, token=token, size=7, row_type=tuple)
            assert [row[0] async for row in rows] == list(range(token + 1, token + 51))

        self.answered += 1

    async def prepared(self, token: int) -> None:
        """Ask with a handle, on a client of the task's own and on one that two tasks share."""
        async with self.pool.get_client(alone=True) as client:
            client.share()
            both = [client.find(self.handle, token=number) for number in (token, token + 1)]
            rows = await asyncio.gather(*both)
            assert [int(row.token) for row in rows if row is not None] == [token, token + 1]

        self.answered += 1

    async def leave(self, token: int) -> None:
        """Leave an iteration early, and go on with the transaction that it was in."""
        async with self.pool.atomic() as client:
            async for row in client.iterate(NUMBERS, token=token, size=5, row_type=tuple):
                assert row[0] == token + 1
                break

            assert (await client.find(self.handle, token=token))[0] == token

        self.answered += 1

    async def session(self, token: int) -> None:
        """Write two rows or none in a session of the engine."""
        async with AsyncSession(self.pool.engine()) as session:
            found = await session.execute(text("SELECT CAST(:token AS DECIMAL)"), {"token": token})
            assert found.scalar() == token

            for part in (1, 2):
                await session.execute(HALF.insert(), {"token": token, "part": part})

            await session.commit()

        self.committed.add(token)

    async def joined(self, token: int) -> None:
        """Write one row with a client, and one with an ORM session in its transaction."""
        async with self.pool.atomic() as client, client.orm_session() as session:
            await client.insert(HALF, token=token, part=1)
            await session.execute(HALF.insert(), {"token": token, "part": 2})
            found = await session.execute(
                text("SELECT COUNT(*) FROM half WHERE token = :token"), {"token": token}
            )
            assert found.scalar() == 2

        self.committed.add(token)

    async def many(self, token: int) -> None:
        """Insert two rows with one call."""
        await self.pool.insert_many(HALF, [{"token": token, "part": part} for part in (1, 2)])
        self.committed.add(token)

    async def write(self, token: int) -> None:
        """Write two rows or none, the second of them in a savepoint."""
        async with self.pool.atomic() as client:
            await client.insert("INSERT INTO half (token, part) VALUES (:token, 1)", token=token)

            async with client.begin():
                await client.insert("INSERT INTO half (token, part) VALUES (:token, 2)", token=token)

        self.committed.add(token)

    async def user(self, rounds: int) -> None:
        """Do one thing after the other; each may be cancelled, some of them twice."""
        rng = self.rng
        kinds = (
            self.ask, self.read, self.write, self.prepared, self.leave, self.session, self.joined, self.many,
        )  # fmt: skip

        for _ in range(rounds):
            self.tokens += 1000
            work = rng.choice(kinds)
            task = asyncio.create_task(work(self.tokens))
            turns = rng.randint(0, rng.choice((10, 60, 400)))

            for _ in range(turns):
                await asyncio.sleep(0)

            if rng.random() < 0.8:
                task.cancel()

                if rng.random() < 0.3:
                    await asyncio.sleep(0)
                    task.cancel()

            await asyncio.wait({task})

            if task.cancelled():
                self.cancelled += 1
            elif (error := task.exception()) is not None:
                raise error


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(3))
async def test_cancelled_users_leave_no_trace(
    backend: str, seed: int, request: pytest.FixtureRequest, tmp_path: Path, soak: bool
):
    """Tasks that were not cancelled have their own answers; blocks are whole; every connection is back."""
    rounds = SOAK_ROUNDS if soak else ROUNDS

    async with make(backend, request, tmp_path) as pool:
        await pool.execute("CREATE TABLE half (token INTEGER, part INTEGER)")
        users = Users(pool, seed)

        async with asyncio.timeout(120 if rounds == ROUNDS else 1200):
            await asyncio.gather(*(users.user(rounds) for _ in range(USERS)))

        assert users.cancelled > (10_000 / 3 if soak else USERS * rounds / 10)  # of three seeds
        assert users.answered > 0
        rows = await pool.select("SELECT token, COUNT(*) AS parts FROM half GROUP BY token")
        assert {row.parts for row in rows} <= {2}
        assert users.committed <= {row.token for row in rows}

        for statistics in [pool.statistics()] + (
            [pool.writer_statistics()] if isinstance(pool, SqlitePool) else []
        ):
            assert statistics.leased == statistics.waiting == 0
            assert statistics.size <= statistics.max_size

        if backend == "memory":
            assert pool.statistics().opened == 1

        if (running := RUNNING.get(pool.engine().dialect.name)) is not None:
            async with asyncio.timeout(10):  # the server may be told, and not have stopped yet
                while (await pool.find(running))[0]:
                    await asyncio.sleep(0.05)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_begin_or_commit_that_was_cancelled_swallows_nothing(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path
):
    """What comes next is kept, on the same client and on the next one, whatever the server did before."""
    async with make(backend, request, tmp_path) as pool:
        await pool.execute("CREATE TABLE half (token INTEGER, part INTEGER)")
        pool.resize(max_size=1) if backend != "memory" else None
        kept = 0

        async def begin(client: SqlClient) -> None:
            async with client.begin():
                pass

        for turns in range(25):
            async with pool.get_client() as client:
                beginning = asyncio.create_task(begin(client))

                for _ in range(turns):
                    await asyncio.sleep(0)

                beginning.cancel()
                await asyncio.wait({beginning})

                with suppress(UnavailableError):  # of MySQL and SQLite: the connection was cut short
                    await client.insert(HALF, token=turns, part=1)
                    kept += 1

            await pool.insert(HALF, token=turns, part=2)
            kept += 1

        assert await pool.count(HALF) == kept


async def test_a_connection_taken_for_sound_would_mix_replies_up(
    mysql_url: str, monkeypatch: pytest.MonkeyPatch
):
    """The broken twin keeps connections whose exchange was cut short, and is caught."""
    async with MysqlPool(mysql_url, max_size=1) as pool:
        monkeypatch.setattr(pool._pool, "_is_clean", lambda _: True)
        lease = await pool._pool.acquire()
        connection = lease.connection
        asking = asyncio.create_task(connection.run("SELECT 1 AS token", None))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait({asking})
        pool._pool.release(lease)
        connection.cut = connection.in_exchange = False

        with pytest.raises((AssertionError, UnavailableError)):  # the latter when both replies came together
            await Users(pool, 0).ask(7)


@pytest.mark.parametrize("driver", ["aiomysql", "asyncmy"])
async def test_a_session_of_the_engine_that_is_cancelled_leaves_no_reply_behind(driver: str, mysql_url: str):
    """Its statement is answered later, and nobody reads that answer."""
    async with MysqlPool(mysql_url.replace("mysql://", f"mysql+{driver}://", 1), max_size=1) as pool:
        begun = asyncio.Event()

        async def work() -> None:
            async with pool.engine().connect() as connection:
                await connection.execute(text("SELECT 1"))
                begun.set()
                await connection.execute(text("DO SLEEP(0.3)"))  # its reply is like that to a reset

        working = asyncio.create_task(work())
        await begun.wait()
        await asyncio.sleep(0)
        working.cancel()
        await asyncio.wait({working})
        assert working.cancelled()

        for n in range(20):
            assert (await pool.find("SELECT :n AS n", n=n)).n == n
