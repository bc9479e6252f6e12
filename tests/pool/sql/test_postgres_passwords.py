"""Logging in to PostgreSQL with a password: SCRAM, from the URL, a function or a file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.pool.sql._postgres import over
from tools.servers import PostgresServer
from ws_pool import PostgresPool
from ws_pool.errors import UnavailableError

PASSWORD = "two words/ü"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server on which the user ``ann`` needs a password."""
    with PostgresServer() as server:
        server.execute(f"CREATE ROLE ann LOGIN PASSWORD '{PASSWORD}'")
        rules = Path(server.unix_folder, "data", "pg_hba.conf")
        rules.write_text(f"host all ann 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        server.restart()
        yield server


async def user_of(url: str, **options: Any) -> str:
    """Return the name under which a pool is logged in."""
    async with PostgresPool(url, max_size=1, **options) as pool:
        return str((await pool.find("SELECT current_user AS name")).name)


@pytest.fixture
def place(driver: str, server: PostgresServer) -> str:
    """Return the URL of the server without a user."""
    return over(driver, server.url).replace("postgres@", "")


async def test_in_the_url(place: str) -> None:
    """Percent-encoded, as in every URL."""
    assert await user_of(place.replace("://", f"://ann:{quote(PASSWORD, safe='')}@")) == "ann"


async def test_from_a_function(place: str) -> None:
    """It is asked at each connection, so that a token may change."""
    assert await user_of(place, user="ann", password=lambda: PASSWORD) == "ann"


async def test_from_a_file(place: str, tmp_path: Path) -> None:
    """A file in libpq's format, which only its owner may read."""
    file = tmp_path / "passwords"
    file.write_text(f"elsewhere:*:*:ann:wrong\n127.0.0.1:*:test:ann:{PASSWORD}\n", encoding="utf-8")
    file.chmod(0o600)
    assert await user_of(place, user="ann", passfile=str(file)) == "ann"


@pytest.mark.parametrize("password", ["hunter2", "", None])
async def test_a_wrong_one(place: str, password: str | None) -> None:
    """The error comes at once, names the user, and does not show the password."""
    given = {} if password is None else {"password": password}

    with pytest.raises(UnavailableError, match="ann") as refused:
        await asyncio.wait_for(user_of(place, user="ann", passfile="/nonexistent", **given), 60)

    assert "hunter2" not in str(refused.value)
