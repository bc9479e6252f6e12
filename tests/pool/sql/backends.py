"""Pools of every driver, each on a database of the test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.pool.sql._postgres import QUICK
from ws_pool import MysqlPool, PostgresPool, SqlitePool
from ws_pool._sql.pool import SqlPool

BACKENDS = ("aiomysql", "asyncmy", "sqlite", "memory")
MYSQL = ("aiomysql", "asyncmy")
POSTGRES = ("asyncpg", "psycopg")


def make_pool(backend: str, mysql_url: str, directory: Path, **options: Any) -> SqlPool:
    """Make the pool of a driver, or of a SQLite database in a file or in memory."""
    if backend == "memory":
        return SqlitePool("sqlite:///:memory:", **options)

    if backend == "sqlite":
        return SqlitePool(f"sqlite:///{directory / 'client.db'}", **options)

    return MysqlPool(mysql_url.replace("mysql://", f"mysql+{backend}://", 1), **options)


def make_requested(request: pytest.FixtureRequest, directory: Path, **options: Any) -> SqlPool:
    """Make the pool that a fixture's parameter names; only the server that it needs is started."""
    backend: str = request.param

    if backend in POSTGRES:
        url = request.getfixturevalue("postgres_url")
        return PostgresPool(url, driver=backend, server_settings=QUICK, **options)

    url = "" if backend in {"sqlite", "memory"} else request.getfixturevalue("mysql_url")
    return make_pool(backend, url, directory, **options)


def make_mysql(url: str, driver: str = "aiomysql", **options: Any) -> MysqlPool:  # any option of the class
    """Make a pool of a driver."""
    return MysqlPool(url.replace("mysql://", f"mysql+{driver}://", 1), **options)
