"""`PostgresPool` against SQLAlchemy's AsyncEngine and against asyncpg's own pool."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import Column, Integer, MetaData, String, Table, bindparam, insert, select
from sqlalchemy.ext.asyncio import create_async_engine

from tools.bench.harness import Candidate, Case, Suite, Target, main
from tools.servers import PostgresServer
from ws_pool import PostgresPool

ABOUT = """\
A PostgreSQL server on the same machine, over TCP; 50 tasks share 10 connections and each takes one for one
statement. "Built anew" makes the Core statement for every call; "prepared" uses a handle of `pool.prepare`.
SQLAlchemy runs as it comes, and "tuned": in AUTOCOMMIT, without the rollback at each release. asyncpg's own
pool runs text without its reset at release, which ours leaves out for clean sessions. Of 5,000 rows every
column of each is read, by unpacking the row. The COPY of asyncpg is `copy_records_to_table`.

Where rows fall short: asyncpg's own `fetch`, read the same way, is 1.9 times as fast as SQLAlchemy, so that
2.4 is out of reach with its decoder. Our rows are tuples, made of its records by a slice."""

TABLE = Table(
    "bench",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", String(30)),
    Column("amount", Integer),
)
FILL = Table("fill", MetaData(), *(Column(column.name, column.type) for column in TABLE.c))
TEXT = "SELECT id, name, amount FROM bench WHERE id = $1"
ALL_TEXT = "SELECT id, name, amount FROM bench"
ROWS, MANY, CONNECTIONS, TASKS = 5_000, 10_000, 10, 50
ALCHEMY, TUNED, RAW = "SQLAlchemy AsyncEngine", "SQLAlchemy, tuned", "asyncpg.Pool, no reset"
Call = Callable[[int], Awaitable[Any]]  # Any: rows of three kinds


async def _no_reset(_: Any) -> None:
    """Leave a connection of asyncpg's pool as it is."""


def _rows() -> list[dict[str, Any]]:
    return [{"id": n, "name": f"name{n}", "amount": n} for n in range(1, MANY + 1)]


def _read(rows: Any) -> int:
    """Read every column of each row, as a program does."""
    return sum(number + len(name) + amount for number, name, amount in rows)


class Subjects:
    """A server with a table, and one client of each kind."""

    def __init__(self) -> None:
        self._opened = False

    async def open(self) -> None:
        """Start everything, once."""
        if self._opened:
            return

        self._opened = True
        self.server = PostgresServer()
        self.server.start()
        self.pool = PostgresPool(self.server.url, max_size=CONNECTIONS)
        await self.pool.start()
        await self.pool.create_all(TABLE.metadata)
        await self.pool.create_all(FILL.metadata)
        await self.pool.insert_many(TABLE, _rows()[:ROWS])
        self.by_id = self.pool.prepare(select(TABLE).where(TABLE.c.id == bindparam("id")))
        url = self.server.url.replace("postgresql://", "postgresql+asyncpg://", 1)
        self.engine = create_async_engine(url, pool_size=CONNECTIONS, max_overflow=0)
        self.tuned_engine = create_async_engine(
            url,
            pool_size=CONNECTIONS,
            max_overflow=0,
            isolation_level="AUTOCOMMIT",
            skip_autocommit_rollback=True,
        )
        self.raw = await asyncpg.create_pool(self.server.url, max_size=CONNECTIONS, reset=_no_reset)

    async def close(self) -> None:
        """Stop everything, once."""
        if self._opened:
            self._opened = False
            await self.pool.close()
            await self.engine.dispose()
            await self.tuned_engine.dispose()
            await self.raw.close()
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
        """Select one row with asyncpg's own pool."""
        async with self.raw.acquire() as connection:
            return await connection.fetch(TEXT, number)

    async def all_ours(self) -> None:
        """Read all rows."""
        _read(await self.pool.select(select(TABLE)))

    async def all_alchemy(self) -> None:
        """Read all rows with SQLAlchemy."""
        async with self.engine.connect() as connection:
            _read((await connection.execute(select(TABLE))).all())

    async def all_driven(self) -> None:
        """Read all rows with asyncpg."""
        async with self.raw.acquire() as connection:
            _read(await connection.fetch(ALL_TEXT))

    async def empty(self) -> None:
        """Empty the table that is filled."""
        await self.pool.execute("TRUNCATE fill")

    async def fill_ours(self) -> None:
        """Insert many rows."""
        await self.pool.insert_many(FILL, _rows())

    async def fill_alchemy(self) -> None:
        """Insert many rows with SQLAlchemy."""
        async with self.engine.begin() as connection:
            await connection.execute(insert(FILL), _rows())

    async def fill_driven(self) -> None:
        """Insert many rows with asyncpg's COPY."""
        records = [tuple(row.values()) for row in _rows()]

        async with self.raw.acquire() as connection:
            await connection.copy_records_to_table("fill", records=records)

    def candidate(self, name: str, call: Call, calls: int) -> Candidate:
        """Make a candidate whose round is many calls by many tasks."""

        async def run() -> None:
            numbers = iter(range(calls))

            async def task() -> None:
                for number in numbers:
                    await call(number % ROWS + 1)

            await asyncio.gather(*(task() for _ in range(TASKS)))

        return Candidate(name, run=run, setup=self.open, teardown=self.close)


def suite(quick: bool) -> Suite:
    """Build the suite."""
    calls, rounds = (500, 5) if quick else (3_000, 15)
    on = Subjects()
    one_row = {
        "ws-pool, built anew": on.anew,
        "ws-pool, prepared": on.prepared,
        ALCHEMY: on.alchemy,
        TUNED: on.tuned,
        RAW: on.driven,
    }
    readers = {"ws-pool": on.all_ours, ALCHEMY: on.all_alchemy, "asyncpg, fetch": on.all_driven}
    fillers = {"ws-pool insert_many": on.fill_ours, ALCHEMY: on.fill_alchemy, "asyncpg, COPY": on.fill_driven}
    cases = (
        Case(
            "one row",
            operations=calls,
            candidates=tuple(on.candidate(name, call, calls) for name, call in one_row.items()),
            targets=(
                Target("ws-pool, built anew", peer=ALCHEMY, at_least=3.5),
                Target("ws-pool, prepared", peer=ALCHEMY, at_least=5.0),
                Target("ws-pool, built anew", peer=TUNED, at_least=2.6),
                Target("ws-pool, prepared", peer=TUNED, at_least=4.0),
                Target("ws-pool, prepared", peer=RAW, at_least=0.95),
            ),
            rounds=rounds,
        ),
        Case(
            f"{ROWS:,} rows",
            operations=1,
            candidates=tuple(
                Candidate(name, run=run, setup=on.open, teardown=on.close) for name, run in readers.items()
            ),
            targets=(
                Target("ws-pool", peer=ALCHEMY, at_least=2.4),
                Target("ws-pool", peer="asyncpg, fetch", at_least=0.8),
            ),
            rounds=rounds,
        ),
        Case(
            f"insert {MANY:,} rows",
            operations=MANY,
            candidates=tuple(
                Candidate(name, run=run, setup=on.open, teardown=on.close, prepare=on.empty)
                for name, run in fillers.items()
            ),
            targets=(
                Target("ws-pool insert_many", peer=ALCHEMY, at_least=3.0),
                Target("ws-pool insert_many", peer="asyncpg, COPY", at_least=0.7),
            ),
            rounds=rounds,
        ),
    )
    return Suite(
        name="postgres",
        title="PostgreSQL",
        packages=("ws-pool", "sqlalchemy", "asyncpg"),
        about=ABOUT,
        cases=cases,
    )


if __name__ == "__main__":
    main(suite)
