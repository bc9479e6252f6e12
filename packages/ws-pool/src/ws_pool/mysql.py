"""MySQL and MariaDB: `MysqlPool`, over aiomysql or asyncmy."""

from __future__ import annotations

from ws_pool._core.extras import missing

try:
    from ws_pool._sql.client import SqlClient
    from ws_pool._sql.compile.compiler import Prepared
    from ws_pool._sql.compile.parameters import Statement
    from ws_pool._sql.connection import SqlConnection
    from ws_pool._sql.manager import SqlPoolManager, sql_pool_manager
    from ws_pool._sql.mysql.clients import MysqlClient
    from ws_pool._sql.mysql.pool import MysqlPool
    from ws_pool._sql.results import Result
    from ws_pool._sql.rows import Row
except ModuleNotFoundError as _error:
    raise missing(__name__, _error, "mysql", "asyncmy") from _error

__all__ = (
    "MysqlClient",
    "MysqlPool",
    "MysqlPoolManager",
    "Prepared",
    "Result",
    "Row",
    "SqlClient",
    "SqlConnection",
    "SqlPoolManager",
    "Statement",
    "mysql_pool_manager",
    "sql_pool_manager",
)

MysqlPoolManager = SqlPoolManager
mysql_pool_manager: SqlPoolManager = sql_pool_manager

for _public in (MysqlClient, MysqlPool, Prepared, Result, Row, SqlClient, SqlPoolManager):
    _public.__module__ = __name__
