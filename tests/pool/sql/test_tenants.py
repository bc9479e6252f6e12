"""Tenants: pools that come and go, schemas put in the place of others, and the option ``tenant``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Sequence, String, Table, bindparam, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.pool.sql.backends import MYSQL, POSTGRES, make_pool, make_requested
from ws_pool import PostgresPool, SqlitePool, SqlPoolManager
from ws_pool._sql.pool import SqlPool
from ws_pool.errors import ConfigError, UsageError

NOTE = Table("note", MetaData(), Column("id", Integer, primary_key=True), Column("what", String(30)))
TENANT: ContextVar[str | None] = ContextVar("tenant", default=None)
KINDS = (*MYSQL, *POSTGRES)
ONE, TWO = "ws_one", "ws_two"


@pytest.fixture(params=KINDS)
async def pool(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlPool]:
    """A pool of one connection; its own database and those of two tenants have a table of one row."""
    async with make_requested(request, tmp_path, max_size=1, tenant=TENANT.get) as pool:
        await pool.create_all(NOTE.metadata)
        await pool.insert(NOTE, what="own")

        for tenant in (ONE, TWO):
            await pool.execute(f"CREATE SCHEMA {tenant}")

            async with pool.get_client(schema_translate_map={None: tenant}) as client:
                await client.create_all(NOTE.metadata)
                await client.insert(NOTE, what=tenant)

        try:
            yield pool
        finally:
            for tenant in (ONE, TWO):
                cascade = " CASCADE" if request.param in POSTGRES else ""
                await pool.execute(f"DROP SCHEMA {tenant}{cascade}")


class TestSchemas:
    """``get_client(schema_translate_map=…)``."""

    async def test_each_client_works_in_its_schemas(self, pool: SqlPool):
        """Built anew, from the cache, as a handle, many rows: a plan of one tenant is never another's."""
        handle = pool.prepare(select(NOTE.c.what).where(NOTE.c.id >= bindparam("id")))

        for _ in range(3):
            for tenant in (ONE, None, TWO):
                async with pool.get_client(schema_translate_map={None: tenant} if tenant else None) as client:
                    expected = [tenant or "own"]
                    assert [row.what for row in await client.select(select(NOTE))] == expected
                    assert [row.what for row in await client.select(handle, id=0)] == expected
                    assert await client.count(NOTE) == 1

        async with pool.get_client(schema_translate_map={None: ONE}) as client:
            await client.insert_many(NOTE, [{"what": "a"}, {"what": "b"}])
            await client.execute(insert(NOTE), [{"what": "c"}, {"what": "d"}])
            assert await client.count(NOTE) == 5

        assert await pool.count(NOTE) == 1

    async def test_a_statement_may_have_its_own(self, pool: SqlPool):
        """As SQLAlchemy's execution option."""
        query = select(NOTE.c.what).execution_options(schema_translate_map={None: TWO})
        assert [row.what for row in await pool.select(query)] == [TWO]
        assert [row.what for row in await pool.select(select(NOTE.c.what))] == ["own"]

    @pytest.mark.parametrize("schemas", ["other", ["other"], {"a": 5}, {5: "a"}, 7])
    async def test_a_map_is_of_names(self, pool: SqlPool, schemas: Any):
        """The error is at the beginning of the block."""
        with pytest.raises(UsageError, match="a mapping of names of schemas"):
            async with pool.get_client(schema_translate_map=schemas):
                pass

        async with pool.get_client(schema_translate_map={}) as client:
            assert await client.find("SELECT 1") == (1,)

    async def test_inside_another_block_the_connection_is_shared_and_the_schemas_are_not(self, pool: SqlPool):
        """The pool has one connection, and what the task runs inside belongs to the inner block."""
        async with pool.atomic() as outer:
            async with pool.get_client(schema_translate_map={None: ONE}) as inner:
                assert await pool.select(select(NOTE.c.what)) == [(ONE,)]

                async with pool.get_client() as same:
                    assert same is inner

            assert await pool.select(select(NOTE.c.what)) == [("own",)]
            assert await outer.select(select(NOTE.c.what)) == [("own",)]


class TestHook:
    """The option ``tenant``."""

    async def test_blocks_work_in_the_tenant_of_their_task(self, pool: SqlPool):
        """Over one connection, in turn and at once; the reset takes a tenant back."""

        async def work(tenant: str | None) -> None:
            TENANT.set(tenant)
            handle = pool.prepare(text("SELECT what FROM note WHERE what <> :no"))

            for _ in range(5):
                assert await pool.select("SELECT what FROM note") == [(tenant or "own",)]
                assert await pool.select(handle, no="") == [(tenant or "own",)]

                async with pool.atomic() as client:
                    assert await client.select(select(NOTE.c.what)) == [(tenant or "own",)]

                async with AsyncSession(pool.engine()) as session:
                    found = await session.execute(select(NOTE.c.what))
                    assert [row.what for row in found] == [tenant or "own"]

        await asyncio.gather(*(work(tenant) for tenant in (ONE, TWO, None)))

    async def test_another_tenant_inside_of_a_block_is_refused(self, pool: SqlPool):
        """It would read what the block's tenant has."""
        token = TENANT.set(ONE)

        async with pool.get_client():
            TENANT.set(TWO)

            with pytest.raises(UsageError, match="end the block before"):
                await pool.select("SELECT what FROM note")

        TENANT.reset(token)

    async def test_a_tenant_that_does_not_exist_leaves_a_sound_pool(self, pool: SqlPool):
        """The error reaches the caller, be it of the hook or of the server."""
        token = TENANT.set("")

        with pytest.raises(UsageError, match="must return a name"):
            await pool.select("SELECT 1")

        TENANT.set('ws_nowhere`"')

        with pytest.raises(Exception, match=r"[Uu]nknown database|does not exist"):
            await pool.select("SELECT what FROM note")

        TENANT.reset(token)
        assert await pool.select("SELECT what FROM note") == [("own",)]
        assert pool.statistics().leased == 0


class TestPooler:
    """PostgreSQL with ``prepared=False``: a session is not ours to change."""

    async def test_the_tenant_holds_for_transactions(self, postgres_url: str):
        """Outside of one a statement is refused, and nothing stays on the session."""

        async def tenant() -> str | None:
            return TENANT.get()

        async with PostgresPool(postgres_url, max_size=1, prepared=False, tenant=tenant) as pool:
            await pool.execute(f"CREATE SCHEMA {ONE}")
            await pool.execute(f"CREATE TABLE {ONE}.note (what text)")
            await pool.execute(f"INSERT INTO {ONE}.note VALUES ('one')")
            token = TENANT.set(ONE)

            async with pool.atomic() as client:
                assert await client.select("SELECT what FROM note") == [("one",)]

            for refused in (pool.select("SELECT 1"), pool.engine().connect().start()):
                with pytest.raises(UsageError, match="atomic"):
                    await refused

            TENANT.reset(token)
            assert (await pool.find("SHOW search_path"))[0] == '"$user", public'


async def test_a_sequence_of_another_schema(postgres_url: str):
    """A default that the server makes is asked for in the client's schema too."""
    numbers = Sequence("numbers", schema="plan")
    table = Table("counted", MetaData(), Column("id", Integer, numbers, primary_key=True), schema="plan")

    async with PostgresPool(postgres_url) as pool:
        for schema, start in ((ONE, 10), (TWO, 20)):
            await pool.execute(f"CREATE SCHEMA {schema}")
            await pool.execute(f"CREATE SEQUENCE {schema}.numbers START {start}")
            await pool.execute(f"CREATE TABLE {schema}.counted (id int)")

        for schema, start in ((ONE, 10), (TWO, 20)):
            async with pool.get_client(schema_translate_map={"plan": schema}) as client:
                await client.insert(table)
                await client.insert_many(table, [{}, {}])
                assert [row.id for row in await client.select(select(table))] == [start, start + 1, start + 2]


class TestManager:
    """`SqlPoolManager.add` and `remove`."""

    async def test_pools_come_and_go(self, tmp_path: Path):
        """One that was removed can be added again; blocks in use end before."""
        manager = SqlPoolManager()
        manager.register({"default": "sqlite:///:memory:"})
        early = await manager.add("early", "sqlite:///:memory:")
        assert not early.statistics().size

        async with manager:
            assert (await manager.find("SELECT 1 AS n", pool_name="early")).n == 1
            added = await manager.add("tenant", {"path": str(tmp_path / "tenant.db")})
            assert manager.get_pool("tenant") is added
            assert manager.names == ("default", "early", "tenant")

            async with manager.get_client("tenant") as client:
                removing = asyncio.create_task(manager.remove("tenant"))
                await asyncio.sleep(0.05)
                assert not removing.done()
                await client.execute("SELECT 1")

            await removing

            with pytest.raises(UsageError, match="no pool 'tenant'"):
                manager.get_pool("tenant")

            await manager.add("tenant", {"path": str(tmp_path / "tenant.db")})
            assert (await manager.health()).ok

    async def test_what_cannot_be_added_changes_nothing(self, tmp_path: Path):
        """A name that is taken, a wrong option, a database that cannot be opened."""
        manager = SqlPoolManager()
        manager.register({"default": "sqlite:///:memory:"})

        async with manager:
            with pytest.raises(UsageError, match="remove"):
                await manager.add("default", "sqlite:///:memory:")

            with pytest.raises(ConfigError, match=r"DATABASES\.x\.url must begin with"):
                await manager.add("x", "oracle://somewhere/db")

            with pytest.raises(ConfigError, match=r"DATABASES\.x\.tenant"):
                await manager.add("x", {"path": str(tmp_path / "x.db"), "tenant": TENANT.get})

            with pytest.raises(Exception, match="x"):
                await manager.add("x", {"path": str(tmp_path / "no" / "x.db")})

            with pytest.raises(UsageError, match="no pool 'x'"):
                await manager.remove("x")

            assert manager.names == ("default",)


async def test_setup_reaches_every_holder(mysql_url: str):
    """What the reset has taken back is there again for the next user of the connection."""

    async def setup(connection: object) -> None:
        await connection.run("SET @tenant = 'a', time_zone = '+03:00'", None)  # type: ignore[attr-defined]

    async with make_pool("aiomysql", mysql_url, Path(), max_size=1, setup=setup) as pool:
        for _ in range(3):
            assert await pool.select("SELECT @tenant, @@time_zone") == [("a", "+03:00")]
            await pool.execute("SET @tenant = 'b', time_zone = '+00:00'")


async def test_a_pool_can_be_resized(tmp_path: Path):
    """A file's readers; a database in memory has one connection."""
    async with SqlitePool(path=str(tmp_path / "x.db"), max_size=1) as pool:
        pool.resize(max_size=3)
        assert pool.statistics().max_size == 3

    async with SqlitePool("sqlite:///:memory:") as pool:
        with pytest.raises(UsageError, match="one connection"):
            pool.resize(max_size=3)
