"""Seeded cancellations over real drivers: no reply crosses over, no block is half done, nothing is lost."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from sqlalchemy import text

from ws_pool import MysqlPool, PostgresPool, SqlitePool
from ws_pool._sql.pool import SqlPool
from ws_pool.errors import UnavailableError

BACKENDS = ("aiomysql", "asyncmy", "sqlite", "memory", "postgres")
USERS = 8
ROUNDS = 40  # of each user; most of them are cancelled
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

    if backend == "postgres":
        return PostgresPool(request.getfixturevalue("postgres_url"), max_size=3)

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

    async def write(self, token: int) -> None:
        """Write two rows or none, the second of them in a savepoint."""
        async with self.pool.atomic() as client:
            await client.insert("INSERT INTO half (token, part) VALUES (:token, 1)", token=token)

            async with client.begin():
                await client.insert("INSERT INTO half (token, part) VALUES (:token, 2)", token=token)

        self.committed.add(token)

    async def user(self) -> None:
        """Do one thing after the other; each may be cancelled, some of them twice."""
        rng = self.rng

        for _ in range(ROUNDS):
            self.tokens += 1000
            work = rng.choice((self.ask, self.read, self.write))
            task = asyncio.create_task(work(self.tokens))
            turns = rng.randint(0, 60)

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
    backend: str, seed: int, request: pytest.FixtureRequest, tmp_path: Path
):
    """Whoever was not cancelled has his own answers; blocks are whole; every connection is back."""
    async with make(backend, request, tmp_path) as pool:
        await pool.execute("CREATE TABLE half (token INTEGER, part INTEGER)")
        users = Users(pool, seed)

        async with asyncio.timeout(120):
            await asyncio.gather(*(users.user() for _ in range(USERS)))

        assert users.cancelled > USERS * ROUNDS / 10
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
