"""The SQL pools against SQLAlchemy's AsyncEngine and against the raw drivers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiomysql  # type: ignore[import-untyped]
import asyncmy
from sqlalchemy import Column, Integer, MetaData, String, Table, bindparam, insert, select
from sqlalchemy.ext.asyncio import create_async_engine

from tools.bench.harness import Candidate, Case, Suite, Target, main
from tools.servers import MariaDBServer
from ws_pool import MysqlPool, Pool

ABOUT = """\
A MariaDB server on the same machine, over TCP; 50 tasks share 10 connections and each takes one for one
statement. "Built anew" makes the Core statement for every call, as code does that is written plainly;
"prepared" uses a handle of `pool.prepare`. SQLAlchemy runs as it comes, which is what the bounds are
on, and "tuned": in AUTOCOMMIT, without the rollback at each release. The raw driver runs text with its own
pool and cursor; asyncmy is also shown with its cache of statements prepared on the server, which is what
our prepared statements use there. 5,000 rows are read over each of 10 connections in turn, as `Row`
objects, which is what the bounds are on; plain tuples (`row_type=tuple`), which is what the drivers give,
are shown beside them. "Idle pool" acquires and releases a connection of a driver that does nothing,
beside taking and putting an item of an `asyncio.Queue`."""

TABLE = Table(
    "bench",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", String(30)),
    Column("amount", Integer),
)
TEXT = "SELECT id, name, amount FROM bench WHERE id = %s"
ALL_TEXT = "SELECT id, name, amount FROM bench"
ROWS = 5_000
MANY = 10_000
CONNECTIONS = 10
TASKS = 50
Call = Callable[[int], Awaitable[Any]]  # Any: rows of three kinds


class Nothing:
    """A connector whose connections do nothing."""

    async def open(self) -> object:
        """Return something."""
        return object()

    def is_alive(self, conn: object) -> bool:
        """Return that it is alive."""
        return True

    def is_clean(self, conn: object) -> bool:
        """Return that it is clean."""
        return True

    async def ping(self, conn: object) -> None:
        """Do nothing."""

    async def reset(self, conn: object) -> None:
        """Do nothing."""

    async def close(self, conn: object) -> None:
        """Do nothing."""

    def terminate(self, conn: object) -> None:
        """Do nothing."""


class Subjects:
    """A server with a table, and one client of each kind over one driver."""

    def __init__(self, driver: str) -> None:
        self.driver = driver
        self._opened = False

    async def open(self) -> None:
        """Start everything, once."""
        if self._opened:
            return

        self._opened = True
        self.server = MariaDBServer()
        self.server.start()
        url = self.server.url.replace("mysql://", f"mysql+{self.driver}://", 1)
        self.pool = MysqlPool(url, max_size=CONNECTIONS)
        await self.pool.start()
        await self.pool.create_all(TABLE.metadata)
        await self.pool.insert_many(
            TABLE, [{"id": n, "name": f"name{n}", "amount": n} for n in range(1, ROWS + 1)]
        )
        self.by_id = self.pool.prepare(select(TABLE).where(TABLE.c.id == bindparam("id")))
        self.engine = create_async_engine(url, pool_size=CONNECTIONS, max_overflow=0)
        self.tuned_engine = create_async_engine(
            url,
            pool_size=CONNECTIONS,
            max_overflow=0,
            isolation_level="AUTOCOMMIT",
            skip_autocommit_rollback=True,
        )
        module: Any = aiomysql if self.driver == "aiomysql" else asyncmy
        options: dict[str, Any] = {
            "host": self.server.host,
            "port": self.server.port,
            "user": "root",
            "db": "test",
            "autocommit": True,
            "maxsize": CONNECTIONS,
        }
        self.raws: list[Any] = [await module.create_pool(**options)]

        if self.driver == "asyncmy":
            self.raws.append(await module.create_pool(**options, stmt_cache_size=100))

    async def close(self) -> None:
        """Stop everything, once."""
        if self._opened:
            self._opened = False
            await self.pool.close()
            await self.engine.dispose()
            await self.tuned_engine.dispose()

            for pool in self.raws:
                pool.close()
                await pool.wait_closed()

            self.server.stop()

    async def anew(self, number: int) -> Any:
        """Select one row with a statement made for it."""
        async with self.pool.get_client() as client:
            return await client.select(select(TABLE).where(TABLE.c.id == number))

    async def prepared(self, number: int) -> Any:
        """Select one row with a handle."""
        async with self.pool.get_client() as client:
            return await client.select(self.by_id, id=number)

    async def alchemy(self, number: int) -> Any:
        """Select one row with SQLAlchemy."""
        async with self.engine.connect() as connection:
            return (await connection.execute(select(TABLE).where(TABLE.c.id == number))).all()

    async def tuned(self, number: int) -> Any:
        """Select one row with SQLAlchemy, which knows that nothing has to be rolled back."""
        async with self.tuned_engine.connect() as connection:
            return (await connection.execute(select(TABLE).where(TABLE.c.id == number))).all()

    async def driven(self, number: int) -> Any:
        """Select one row with the driver's own pool."""
        async with self.raws[0].acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(TEXT, (number,))
            return await cursor.fetchall()

    async def driven_cached(self, number: int) -> Any:
        """Select one row with the driver's own pool and its cache of prepared statements."""
        async with self.raws[1].acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(TEXT, (number,))
            return await cursor.fetchall()

    async def all_ours(self) -> None:
        """Select all rows, over each connection."""
        await self._all_by(None)

    async def all_tuples(self) -> None:
        """Select all rows as plain tuples, over each connection."""
        await self._all_by(tuple)

    async def all_driven(self) -> None:
        """Select all rows with the driver, over each connection."""
        async with AsyncExitStack() as stack:
            raws = [await stack.enter_async_context(self.raws[0].acquire()) for _ in range(CONNECTIONS)]

            for raw in raws:
                async with raw.cursor() as cursor:
                    await cursor.execute(ALL_TEXT)
                    await cursor.fetchall()

    async def _all_by(self, row_type: type | None) -> None:
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(self.pool.get_client(alone=True)) for _ in range(CONNECTIONS)
            ]

            for client in clients:
                await client.select(select(TABLE), row_type=row_type)

    async def empty(self) -> None:
        """Empty the table that is filled."""
        await self.pool.execute("CREATE TABLE IF NOT EXISTS fill LIKE bench")
        await self.pool.execute("TRUNCATE fill")

    async def fill_ours(self) -> None:
        """Insert many rows."""
        await self.pool.insert_many(FILL, _rows())

    async def fill_alchemy(self) -> None:
        """Insert many rows with SQLAlchemy."""
        async with self.engine.begin() as connection:
            await connection.execute(insert(FILL), _rows())

    def candidate(self, name: str, call: Call, calls: int) -> Candidate:
        """Make a candidate whose round is many calls by many tasks."""

        async def run() -> None:
            numbers = iter(range(calls))

            async def task() -> None:
                for number in numbers:
                    await call(number % ROWS + 1)

            await asyncio.gather(*(task() for _ in range(TASKS)))

        return Candidate(name, run=run, setup=self.open, teardown=self.close)


FILL = Table("fill", MetaData(), *(Column(column.name, column.type) for column in TABLE.c))


def _rows() -> list[dict[str, Any]]:
    return [{"id": n, "name": f"name{n}", "amount": n} for n in range(1, MANY + 1)]


class Idle:
    """A pool and a queue with one thing in them."""

    async def open(self) -> None:
        """Start."""
        self.pool = Pool(Nothing(), max_size=CONNECTIONS)
        await self.pool.start()
        self.queue: asyncio.Queue[int] = asyncio.Queue()
        self.queue.put_nowait(1)
        self.count = 0

    async def close(self) -> None:
        """Stop."""
        await self.pool.close()

    def with_pool(self, calls: int) -> Callable[[], Awaitable[None]]:
        """Acquire and release."""

        async def run() -> None:
            pool = self.pool

            for _ in range(calls):
                lease = await pool.acquire()
                pool.release(lease)

        return run

    def with_queue(self, calls: int) -> Callable[[], Awaitable[None]]:
        """Get and put."""

        async def run() -> None:
            queue = self.queue

            for _ in range(calls):
                item = await queue.get()
                await queue.put(item)

        return run


def suite(quick: bool) -> Suite:
    """Build the suite."""
    calls, rounds = (500, 5) if quick else (3_000, 15)
    cases = []

    for driver, anew, prepared, raw in (("aiomysql", 3.5, 6.0, 1.5), ("asyncmy", 3.0, 8.0, 0.85)):
        on = Subjects(driver)
        alchemy, plain = f"SQLAlchemy AsyncEngine, {driver}", f"{driver}.Pool, text"
        cached = (
            [on.candidate("asyncmy.Pool, statement cache", on.driven_cached, calls)]
            if driver == "asyncmy"
            else []
        )
        cases.append(
            Case(
                f"one row, {driver}",
                operations=calls,
                candidates=(
                    on.candidate("ws-pool, built anew", on.anew, calls),
                    on.candidate("ws-pool, prepared", on.prepared, calls),
                    on.candidate(alchemy, on.alchemy, calls),
                    on.candidate(f"SQLAlchemy, tuned, {driver}", on.tuned, calls),
                    on.candidate(plain, on.driven, calls),
                    *cached,
                ),
                targets=(
                    Target("ws-pool, built anew", peer=alchemy, at_least=anew),
                    Target("ws-pool, prepared", peer=alchemy, at_least=prepared),
                    Target("ws-pool, prepared", peer=plain, at_least=raw),
                ),
                rounds=rounds,
            )
        )
        readers = {
            "ws-pool": on.all_ours,
            "ws-pool, row_type=tuple": on.all_tuples,
            f"{driver}, fetchall": on.all_driven,
        }
        cases.append(
            Case(
                f"{ROWS:,} rows, {driver}",
                operations=CONNECTIONS,
                candidates=tuple(
                    Candidate(name, run=run, setup=on.open, teardown=on.close)
                    for name, run in readers.items()
                ),
                targets=(Target("ws-pool", peer=f"{driver}, fetchall", at_least=0.8),),
                rounds=rounds,
            )
        )

    on = Subjects("aiomysql")
    ways = (("ws-pool insert_many", on.fill_ours), ("SQLAlchemy AsyncEngine, executemany", on.fill_alchemy))
    cases.append(
        Case(
            f"insert {MANY:,} rows, aiomysql",
            operations=MANY,
            candidates=tuple(
                Candidate(name, run=run, setup=on.open, teardown=on.close, prepare=on.empty)
                for name, run in ways
            ),
            targets=(Target(ways[0][0], peer=ways[1][0], at_least=1.2),),
            rounds=rounds,
        )
    )
    idle = Idle()
    turns = 5_000 if quick else 50_000
    cases.append(
        Case(
            "idle pool",
            operations=turns,
            candidates=(
                Candidate(
                    "Pool acquire + release", run=idle.with_pool(turns), setup=idle.open, teardown=idle.close
                ),
                Candidate("asyncio.Queue get + put", run=idle.with_queue(turns)),
            ),
            targets=(Target("Pool acquire + release", peer="asyncio.Queue get + put", at_least=0.4),),
            rounds=rounds,
        )
    )
    return Suite(
        name="sql",
        title="SQL pools",
        packages=("ws-pool", "sqlalchemy", "aiomysql", "asyncmy", "pymysql"),
        about=ABOUT,
        cases=tuple(cases),
    )


if __name__ == "__main__":
    main(suite)
