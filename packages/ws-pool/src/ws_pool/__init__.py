"""
Named pools for MySQL, SQLite, Redis, MongoDB, HTTP and Elasticsearch.

A name is imported from its module when it is first used, so that ``import ws_pool`` loads no driver.
Where the driver is not installed that is an error which says what to install.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ws_pool._sql.manager import atomic as atomic
    from ws_pool.base import BasePoolManager as BasePoolManager
    from ws_pool.cache import CacheWrap as CacheWrap
    from ws_pool.cache import LRUCache as LRUCache
    from ws_pool.cache import ShareCache as ShareCache
    from ws_pool.es import ElasticsearchPool as ElasticsearchPool
    from ws_pool.es import ElasticsearchPoolManager as ElasticsearchPoolManager
    from ws_pool.es import es_pool_manager as es_pool_manager
    from ws_pool.events import RedisEventBus as RedisEventBus
    from ws_pool.events import StreamEventBus as StreamEventBus
    from ws_pool.health import HealthChecker as HealthChecker
    from ws_pool.health import ProcessHealthChecker as ProcessHealthChecker
    from ws_pool.http import HttpPool as HttpPool
    from ws_pool.http import HttpPoolManager as HttpPoolManager
    from ws_pool.http import http_pool_manager as http_pool_manager
    from ws_pool.mongo import MongoPool as MongoPool
    from ws_pool.mongo import MongoPoolManager as MongoPoolManager
    from ws_pool.mongo import mongo_pool_manager as mongo_pool_manager
    from ws_pool.mysql import MysqlPool as MysqlPool
    from ws_pool.mysql import MysqlPoolManager as MysqlPoolManager
    from ws_pool.mysql import Prepared as Prepared
    from ws_pool.mysql import Result as Result
    from ws_pool.mysql import Row as Row
    from ws_pool.mysql import SqlClient as SqlClient
    from ws_pool.mysql import SqlPoolManager as SqlPoolManager
    from ws_pool.mysql import mysql_pool_manager as mysql_pool_manager
    from ws_pool.mysql import sql_pool_manager as sql_pool_manager
    from ws_pool.pool import Connector as Connector
    from ws_pool.pool import Lease as Lease
    from ws_pool.pool import Pool as Pool
    from ws_pool.pool import PoolStatistics as PoolStatistics
    from ws_pool.postgres import PostgresPool as PostgresPool
    from ws_pool.postgres import PostgresPoolManager as PostgresPoolManager
    from ws_pool.redis import RedisPool as RedisPool
    from ws_pool.redis import RedisPoolManager as RedisPoolManager
    from ws_pool.redis import redis_pool_manager as redis_pool_manager
    from ws_pool.sqlite import SqlitePool as SqlitePool
    from ws_pool.sqlite import SqlitePoolManager as SqlitePoolManager

_NAMES = {
    "_sql.manager": "atomic",
    "base": "BasePoolManager",
    "cache": "CacheWrap LRUCache ShareCache",
    "es": "ElasticsearchPool ElasticsearchPoolManager es_pool_manager",
    "events": "RedisEventBus StreamEventBus",
    "health": "HealthChecker ProcessHealthChecker",
    "http": "HttpPool HttpPoolManager http_pool_manager",
    "mongo": "MongoPool MongoPoolManager mongo_pool_manager",
    "mysql": "MysqlPool MysqlPoolManager Prepared Result Row SqlClient SqlPoolManager mysql_pool_manager"
    " sql_pool_manager",
    "pool": "Connector Lease Pool PoolStatistics",
    "postgres": "PostgresPool PostgresPoolManager",
    "redis": "RedisPool RedisPoolManager redis_pool_manager",
    "sqlite": "SqlitePool SqlitePoolManager",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = (
    "BasePoolManager",
    "CacheWrap",
    "Connector",
    "ElasticsearchPool",
    "ElasticsearchPoolManager",
    "HealthChecker",
    "HttpPool",
    "HttpPoolManager",
    "LRUCache",
    "Lease",
    "MongoPool",
    "MongoPoolManager",
    "MysqlPool",
    "MysqlPoolManager",
    "Pool",
    "PoolStatistics",
    "PostgresPool",
    "PostgresPoolManager",
    "Prepared",
    "ProcessHealthChecker",
    "RedisEventBus",
    "RedisPool",
    "RedisPoolManager",
    "Result",
    "Row",
    "ShareCache",
    "SqlClient",
    "SqlPoolManager",
    "SqlitePool",
    "SqlitePoolManager",
    "StreamEventBus",
    "atomic",
    "es_pool_manager",
    "http_pool_manager",
    "mongo_pool_manager",
    "mysql_pool_manager",
    "redis_pool_manager",
    "sql_pool_manager",
)


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)

    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)

    value: object = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
