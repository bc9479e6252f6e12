"""The hook `on_statement` is called once for each statement of a client, with its text, time and error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, bindparam, select

from tests.pool.sql.backends import BACKENDS, POSTGRES, make_pool, make_requested
from ws_pool import SqlitePool
from ws_pool._sql.pool import SqlPool
from ws_pool.errors import ConfigError, IntegrityViolation, QueryError, QueryTimeout

THING = Table("thing", MetaData(), Column("id", Integer, primary_key=True), Column("name", String(20)))


class Calls:
    """A hook that keeps what it gets."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str | None]] = []
        self.texts: list[str] = []

    def __call__(self, sql: str, seconds: float, error: BaseException | None) -> None:
        """Keep a call."""
        assert seconds >= 0
        self.texts.append(sql)
        self.calls.append((sql.split(maxsplit=1)[0].upper(), None if error is None else type(error).__name__))

    def take(self) -> list[tuple[str, str | None]]:
        """Return what was kept since the last time."""
        taken, self.calls = self.calls, []
        return taken


@pytest.fixture
def calls() -> Calls:
    """The hook."""
    return Calls()


@pytest.fixture(params=(*BACKENDS, *POSTGRES))
async def pool(request: pytest.FixtureRequest, tmp_path: Path, calls: Calls) -> AsyncIterator[SqlPool]:
    """A pool of each kind with three rows."""
    async with make_requested(request, tmp_path, on_statement=calls) as made:
        await made.create_all(THING.metadata)
        await made.insert_many(THING, [{"id": n, "name": f"secret{n}"} for n in (1, 2, 3)])
        calls.take()
        yield made


async def test_each_statement_once(pool: SqlPool, calls: Calls):
    """All verbs, handles, iterations and transactions, without values."""
    handle = pool.prepare(select(THING).where(THING.c.id == bindparam("id")))
    await pool.select(select(THING).where(THING.c.name == "secret1"))
    await pool.find(handle, id=1)
    await pool.select(handle, id=1)
    await pool.count(THING)
    assert calls.take() == [("SELECT", None)] * 4
    await pool.insert(THING, id=7, name="secret7")
    await pool.update(THING.update().where(THING.c.id == 7).values(name="secret8"))
    await pool.delete(THING.delete().where(THING.c.id == 7))
    assert [verb for verb, _ in calls.take()] == ["INSERT", "UPDATE", "DELETE"]

    async with pool.atomic() as client:
        assert len([row async for row in client.iterate(select(THING))]) == 3

        async for _ in client.iterate(select(THING), size=1):
            break

    verbs = [*(("BEGIN", None), ("SELECT", None), ("SELECT", None)), ("COMMIT", None)]
    assert calls.take() == verbs
    assert "secret" not in "".join(calls.texts)


async def test_errors_are_reported(pool: SqlPool, calls: Calls):
    """Those of statements and of iterations."""
    with pytest.raises(IntegrityViolation):
        await pool.insert(THING, id=1, name="secret")

    with pytest.raises(QueryError):
        await pool.execute("SELECT * FROM nowhere")

    with pytest.raises(QueryError):
        async with pool.get_client() as client:
            _ = [row async for row in client.iterate("SELECT * FROM nowhere")]

    assert calls.take() == [
        ("INSERT", "IntegrityViolation"),
        ("SELECT", "QueryError"),
        ("SELECT", "QueryError"),
    ]
    assert "secret" not in "".join(calls.texts)


async def test_timeouts_and_cancellations_are_reported(mysql_url: str, tmp_path: Path, calls: Calls):
    """The hook has their error."""
    async with make_pool("asyncmy", mysql_url, tmp_path, on_statement=calls, query_timeout=0.2) as pool:
        with pytest.raises(QueryTimeout):
            await pool.execute("SELECT SLEEP(60)")

        with pytest.raises(QueryTimeout):
            async with pool.get_client() as client:
                _ = [row async for row in client.iterate("SELECT SLEEP(60)")]

    assert calls.take() == [("SELECT", "QueryTimeout")] * 2

    async with make_pool("asyncmy", mysql_url, tmp_path, on_statement=calls) as pool:
        started = asyncio.Event()

        async def sleep() -> None:
            async with pool.get_client() as client:
                started.set()
                await client.execute("SELECT SLEEP(60)")

        task = asyncio.create_task(sleep())
        await started.wait()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})

    assert calls.take() == [("SELECT", "CancelledError")]


async def test_a_failing_hook_fails_no_statement(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """It is logged, with the statement, without values."""

    def fail(sql: str, seconds: float, error: BaseException | None) -> None:
        raise ValueError

    async with SqlitePool(path=str(tmp_path / "x.db"), on_statement=fail) as pool:
        assert (await pool.find("SELECT :word AS a", word="hunter2")) == ("hunter2",)

    assert "on_statement has failed over SELECT" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("hook", ["print", pytest.param(asyncio.sleep, id="async")])
def test_what_is_not_a_hook(hook: Callable[..., object]):
    """A name, or a coroutine function that nobody would await, is refused."""
    with pytest.raises(ConfigError, match="on_statement"):
        SqlitePool(on_statement=hook)
