"""SQLite: `SqlitePool`, one writer and several readers over aiosqlite."""

from __future__ import annotations

from ws_pool._core.extras import missing

try:
    from ws_pool._sql.client import SqlClient
    from ws_pool._sql.compile.compiler import Prepared
    from ws_pool._sql.compile.parameters import Statement
    from ws_pool._sql.manager import SqlPoolManager, sql_pool_manager
    from ws_pool._sql.results import Result
    from ws_pool._sql.rows import Row
    from ws_pool._sql.sqlite.pool import SqlitePool
except ModuleNotFoundError as _error:
    raise missing(__name__, _error, "sqlite") from _error

__all__ = (
    "Prepared",
    "Result",
    "Row",
    "SqlClient",
    "SqlPoolManager",
    "SqlitePool",
    "SqlitePoolManager",
    "Statement",
    "sql_pool_manager",
)

SqlitePoolManager = SqlPoolManager
SqlitePool.__module__ = __name__
