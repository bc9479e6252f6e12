"""PostgreSQL: `PostgresPool`, over asyncpg or psycopg."""

from __future__ import annotations

from ws_pool._core.extras import missing

try:
    from ws_pool._sql.client import SqlClient
    from ws_pool._sql.compile.compiler import Prepared
    from ws_pool._sql.compile.parameters import Statement
    from ws_pool._sql.connection import SqlConnection
    from ws_pool._sql.manager import SqlPoolManager, sql_pool_manager
    from ws_pool._sql.postgres.clients import PostgresClient
    from ws_pool._sql.postgres.notifications import Notification, NotificationGap, Notifications
    from ws_pool._sql.postgres.pool import PostgresPool
    from ws_pool._sql.results import Result
    from ws_pool._sql.rows import Row
except ModuleNotFoundError as _error:
    raise missing(__name__, _error, "postgres") from _error

__all__ = (
    "Notification",
    "NotificationGap",
    "Notifications",
    "PostgresClient",
    "PostgresPool",
    "PostgresPoolManager",
    "Prepared",
    "Result",
    "Row",
    "SqlClient",
    "SqlConnection",
    "SqlPoolManager",
    "Statement",
    "sql_pool_manager",
)

PostgresPoolManager = SqlPoolManager

for _public in (Notification, NotificationGap, Notifications, PostgresClient, PostgresPool):
    _public.__module__ = __name__
