"""SQL pools and transactions: `ws_pool.mysql`, `ws_pool.atomic`."""

from ws_pool import atomic as atomic
from ws_pool.mysql import MysqlPool as MysqlPool
from ws_pool.mysql import MysqlPoolManager as MysqlPoolManager
from ws_pool.mysql import SqlClient as MysqlClient
from ws_pool.mysql import mysql_pool_manager as mysql_pool_manager

__all__ = (
    "MysqlClient",
    "MysqlPool",
    "MysqlPoolManager",
    "atomic",
    "mysql_pool_manager",
)
