"""Logins as MySQL 8 checks them, with caching_sha2_password, over both drivers."""

from __future__ import annotations

import importlib
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.pool.sql._caching_sha2 import CachingSha2Server
from tools.servers import MariaDBServer
from ws_pool import MysqlPool
from ws_pool.errors import MissingExtraError, UnavailableError

CERTIFICATE = Path(__file__).parents[1] / "localhost.pem"
TRUSTED = {"ca": str(CERTIFICATE)}


class Serve(Protocol):
    """Starts a server."""

    async def __call__(self, **options: Any) -> CachingSha2Server:
        """Start a server with these options."""
        ...


@pytest.fixture
async def serve(mariadb_server: MariaDBServer) -> AsyncIterator[Serve]:
    """Start servers that check passwords as MySQL 8 does, before the shared MariaDB."""
    async with AsyncExitStack() as stack:

        async def start(**options: Any) -> CachingSha2Server:
            server = CachingSha2Server(mariadb_server.host, mariadb_server.port, **options)
            return await stack.enter_async_context(server)

        yield start


@pytest.fixture(params=["aiomysql", "asyncmy"])
def driver(request: pytest.FixtureRequest) -> str:
    """Name a driver."""
    return str(request.param)


@pytest.fixture
def with_tls() -> ssl.SSLContext:
    """Make the server's side of TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    return context


def pool_for(driver: str, server: CachingSha2Server, password: str = "secret", **options: Any) -> MysqlPool:
    """Make a pool for the user of a server, over TLS if the server has it."""
    url = f"mysql+{driver}://shop@localhost:{server.port}/test"
    return MysqlPool(url, password=password, ssl=server.tls and TRUSTED, **options)


async def find_one(pool: MysqlPool) -> object:
    """Start a pool, run a statement over it, and close it."""
    async with pool:
        return await pool.find("SELECT 1 AS one, DATABASE() AS db")


@pytest.mark.parametrize("switches", [False, True], ids=["", "switched"])
class TestPaths:
    """The three ways on which a password is checked."""

    async def test_without_tls_the_password_is_encrypted_with_the_servers_key(
        self, driver: str, serve: Serve, *, switches: bool
    ) -> None:
        """The server knows no hash of it yet; nobody on the way sees the password."""
        server = await serve(switches=switches)
        assert await find_one(pool_for(driver, server)) == (1, "test")
        assert server.paths == ["rsa"]
        assert not any(b"secret" in seen for seen in server.seen)

    async def test_over_tls_it_is_sent(
        self, driver: str, serve: Serve, with_tls: ssl.SSLContext, *, switches: bool
    ) -> None:
        """No key is needed for it, and so no other library."""
        server = await serve(switches=switches, tls=with_tls)
        pool = pool_for(driver, server)
        assert await find_one(pool) == (1, "test")
        assert server.paths == ["tls"]

    async def test_a_wrong_password_is_refused(
        self, driver: str, serve: Serve, with_tls: ssl.SSLContext, *, switches: bool
    ) -> None:
        """On each of the ways, whether the server knows the right one or not; the message has neither."""
        for tls in (None, with_tls):
            server = await serve(switches=switches, tls=tls)

            for password in ("wrong-password", "wrong-password", ""):
                pool = pool_for(driver, server, password)

                with pytest.raises(UnavailableError, match=r"1045.*Access denied for user 'shop'") as caught:
                    await pool.start()

                assert "wrong-password" not in str(caught.value)
                assert "secret" not in str(caught.value)

                if password == "wrong-password":
                    assert await find_one(pool_for(driver, server)) == (1, "test")

    async def test_an_empty_password(self, driver: str, serve: Serve, *, switches: bool) -> None:
        """A user without one is let in."""
        server = await serve(switches=switches, password="")
        assert await find_one(pool_for(driver, server, "")) == (1, "test")
        assert server.paths == ["empty"]

    @pytest.mark.parametrize("password", ["pässwörd", "пароль", "a ' \" \\ %s €"])
    async def test_a_password_beyond_ascii(
        self, driver: str, serve: Serve, password: str, *, switches: bool
    ) -> None:
        """It is sent in UTF-8."""
        server = await serve(switches=switches, password=password)
        assert await find_one(pool_for(driver, server, password)) == (1, "test")


async def test_a_known_password_is_checked_by_its_hash(
    driver: str, serve: Serve, with_tls: ssl.SSLContext
) -> None:
    """After one login, further connections take the short way, until the server forgets."""
    for tls, full in ((None, "rsa"), (with_tls, "tls")):
        server = await serve(tls=tls)

        async with pool_for(driver, server, max_size=3) as pool:
            assert server.paths == [full]

            async with pool.get_client(), pool.get_client(alone=True) as client:
                assert await client.find("SELECT 2 AS two") == (2,)
                assert server.paths == [full, "fast"]
                server.forget()

                async with pool.get_client(alone=True) as another:
                    assert await another.find("SELECT 3 AS three") == (3,)

        assert server.paths == [full, "fast", full]


async def test_without_cryptography_the_error_names_the_remedy(
    driver: str, serve: Serve, with_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is needed for the key alone: with TLS, or for a known password, a login works without it."""
    module = importlib.import_module("aiomysql.connection" if driver == "aiomysql" else "asyncmy.auth")
    monkeypatch.setattr(getattr(module, "_auth", module), "_have_cryptography", False)
    server = await serve()
    extra = r"ws-pool\[mysql\]" if driver == "aiomysql" else r"ws-pool\[asyncmy\]"

    with pytest.raises(UnavailableError, match=f"needs cryptography: pip install '{extra}'.*ssl") as caught:
        await pool_for(driver, server).start()

    assert isinstance(caught.value.__cause__, MissingExtraError)
    assert server.paths == []

    server = await serve(tls=with_tls)
    assert await find_one(pool_for(driver, server)) == (1, "test")


async def test_the_password_is_in_the_charset_of_the_connection(driver: str, mysql_url: str) -> None:
    """MariaDB keeps the bytes that CREATE USER had, which are latin1 where all is."""
    base = mysql_url.replace("mysql://", f"mysql+{driver}://", 1).rpartition("/")[0]

    for charset in ("utf8mb4", "latin1"):
        async with MysqlPool(base, charset=charset) as pool:
            user = f"u{charset}"
            await pool.execute(f"CREATE OR REPLACE USER {user}@'%' IDENTIFIED BY 'pässword'")

        try:
            async with MysqlPool(base, user=user, password="pässword", charset=charset) as own:
                assert await own.find("SELECT 1 AS one") == (1,)
        finally:
            async with MysqlPool(base) as pool:
                await pool.execute(f"DROP USER {user}@'%'")
