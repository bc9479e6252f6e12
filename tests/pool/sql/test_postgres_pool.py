"""PostgreSQL pools: behind pgbouncer, their options, and SQLAlchemy's engine over them."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from tests.pool.sql._postgres import ITEM, METADATA, over
from tests.servers import StartServer
from tools.servers import PgbouncerServer, PostgresServer
from ws_pool import PostgresPool, SqlPoolManager
from ws_pool.errors import (
    ConfigError,
    QueryError,
)


class TestPgbouncer:
    """A pooler in transaction mode between."""

    async def test_without_prepared_statements(
        self, postgres_server: PostgresServer, driver: str, driver_url: str, start_server: StartServer
    ) -> None:
        """With prepared=False everything works over a few shared connections."""
        pooler = await asyncio.to_thread(start_server, PgbouncerServer, server=postgres_server)
        url = over(driver, pooler.database_url(driver_url.rpartition("/")[2]))

        async with PostgresPool(url, prepared=False, max_size=8) as pool:
            await pool.create_all(METADATA)

            async def work(number: int) -> None:
                async with pool.atomic() as client:
                    await client.insert(ITEM, name=f"w{number}")
                    found = await client.select(select(ITEM.c.name).where(ITEM.c.name == f"w{number}"))
                    assert found[0].name == f"w{number}"

            await asyncio.gather(*(work(number) for number in range(50)))
            assert await pool.count(ITEM) == 50

    async def test_with_prepared_statements(
        self, postgres_server: PostgresServer, driver: str, driver_url: str, start_server: StartServer
    ) -> None:
        """With prepared statements, which such a pooler mixes up, the error names the option."""
        pooler = await asyncio.to_thread(start_server, PgbouncerServer, server=postgres_server)
        url = over(driver, pooler.database_url(driver_url.rpartition("/")[2]))

        async with (
            PostgresPool(url, max_size=8) as pool,
            pool.get_client(alone=True) as first,
            pool.get_client(alone=True) as second,
        ):
            one, two = pool.prepare("SELECT 1 AS n"), pool.prepare("SELECT 2 AS n")
            await first.select(one)

            # Either the second finds the first's name taken, or the first finds its statement gone.
            with pytest.raises(QueryError, match="prepared=False"):
                async with second.begin():  # takes the server's connection that has the statement
                    await second.select(two)
                    await first.select(one)


class TestOptions:
    """URLs and options."""

    def test_by_scheme(self) -> None:
        """DATABASES takes the pool that the scheme names."""
        manager = SqlPoolManager()
        manager.register({"default": "postgresql://u:secret@h:5433/d", "other": "postgres://h/d"})

        for name in ("default", "other"):
            assert isinstance(manager._build(name, {"url": "postgres://u:secret@h/d"}, name), PostgresPool)

    def test_a_url(self) -> None:
        """All parts are read, and the password is shown nowhere."""
        url = "postgresql://u:se%2Fcret@h:5433/d?sslmode=require&application_name=shop"
        pool = PostgresPool(url, server_settings={"search_path": "a"})
        server = pool._server

        assert (server.host, server.port, server.user, server.password) == ("h", 5433, "u", "se/cret")
        assert (server.db, server.ssl, server.application_name) == ("d", "require", "shop")
        assert "cret" not in repr(pool)

    def test_several_hosts(self) -> None:
        """They stand in a row in the URL."""
        pool = PostgresPool("postgresql://u@a:5433,b:5433/d", target_session_attrs="primary")
        assert (list(pool._server.hosts), pool._server.port) == (["a", "b"], 5433)

        pool = PostgresPool("postgresql://a,b:a,b@a,b/d")  # a user whose name is spelt like the hosts
        assert (list(pool._server.hosts), pool._server.user) == (["a", "b"], "a,b")
        assert pool._server.password == "a,b"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"url": "mysql://h/d"}, r"url must begin with postgresql://, not 'mysql://h/d'"),
            ({"ssl": "maybe"}, "ssl must be one of disable, allow"),
            ({"port": 0}, "port must be"),
            ({"driver": "psycopg2"}, "driver must be one of 'asyncpg', 'psycopg'"),
            ({"url": "postgresql+psycopg2://h/d"}, "driver must be one of 'asyncpg', 'psycopg'"),
            ({"driver": "psycopg", "ssl": ssl.create_default_context()}, "ssl cannot be an SSLContext"),
            ({"server_settings": "x"}, "server_settings must be a mapping"),
            ({"passwort": "x"}, "passwort"),
            ({"url": "postgresql://a:1,b:2/d"}, "several hosts must have one port"),
        ],
    )
    def test_refused(self, options: dict[str, Any], message: str) -> None:
        """A wrong option is named before anything is opened."""
        with pytest.raises(ConfigError, match=message):
            PostgresPool(**options)

    async def test_a_unix_socket(self, postgres_server: PostgresServer, driver: str) -> None:
        """The folder of a socket is a host."""
        async with PostgresPool(
            host=postgres_server.unix_folder,
            port=postgres_server.port,
            user="postgres",
            db="test",
            driver=driver,
        ) as pool:
            assert (await pool.find("SELECT inet_client_addr() AS a")).a is None

    async def test_a_user_from_a_function(self, postgres_server: PostgresServer, driver: str) -> None:
        """User and password may be functions, called for each connection."""

        async def user() -> str:
            return "postgres"

        async with PostgresPool(over(driver, postgres_server.url), user=user, password=lambda: "x") as pool:
            assert (await pool.find("SELECT current_user AS u")).u == "postgres"


class TestEngine:
    """SQLAlchemy's engine over the pool's connections."""

    async def test_engine(self, pool: PostgresPool) -> None:
        """Its sessions hold leases; what they leave is reset, and their JSON reads as ours."""
        async with pool.engine().begin() as connection:
            await connection.execute(insert(ITEM).values(name="by engine"))
            assert pool.statistics().leased == 1

        assert await pool.count(ITEM) == 4
        assert pool.statistics().leased == 0

    async def test_a_cancelled_session(self, pool: PostgresPool) -> None:
        """Its connection is released or closed, and the pool stays whole."""
        engine = pool.engine()

        async def use() -> None:
            async with engine.connect() as connection:
                await connection.execute(select(func.pg_sleep(30)))

        for _ in range(5):
            task = asyncio.create_task(use())
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.wait({task})

        assert await pool.count(ITEM) == 3
        assert pool.statistics().leased == 0


async def test_a_reset_ends_a_transaction_whose_begin_was_cancelled(driver_url: str):
    """The driver learns of it during the reset; what comes after it is kept."""
    async with PostgresPool(driver_url, max_size=1) as pool:
        await pool.execute("CREATE TABLE kept (n int)")

        for turns in range(12):
            lease = await pool._pool.acquire()
            lease.connection.dirty = True
            beginning = asyncio.create_task(lease.connection.raw.execute("BEGIN"))

            for _ in range(turns):
                await asyncio.sleep(0)

            beginning.cancel()
            await asyncio.wait({beginning})
            pool._pool.release(lease)

            async with pool.get_client() as client:
                assert not client.connection.in_transaction, turns
                await client.execute("INSERT INTO kept VALUES (1)")

        assert await pool.count("SELECT * FROM kept") == 12


async def test_a_new_connection_is_healthy(driver_url: str):
    """Its first exchange may be the ping, and the first of all connections may be that of a replica."""
    async with PostgresPool(driver_url, min_size=0) as pool:
        health = await pool.health()
        assert health.ok, health.detail
