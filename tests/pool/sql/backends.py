"""Pools of every driver, each on a database of the test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ws_pool import MysqlPool, SqlitePool
from ws_pool._sql.pool import SqlPool

BACKENDS = ("aiomysql", "asyncmy", "sqlite", "memory")
MYSQL = ("aiomysql", "asyncmy")


def make_pool(backend: str, mysql_url: str, directory: Path, **options: Any) -> SqlPool:
    """Make the pool of a driver, or of a SQLite database in a file or in memory."""
    if backend == "memory":
        return SqlitePool("sqlite:///:memory:", **options)

    if backend == "sqlite":
        return SqlitePool(f"sqlite:///{directory / 'client.db'}", **options)

    return MysqlPool(mysql_url.replace("mysql://", f"mysql+{backend}://", 1), **options)
