"""
Named pools for MySQL, SQLite, Redis, MongoDB, HTTP and Elasticsearch.

A name is imported from its module when it is first used, so that ``import ws_pool`` loads no driver.
Where the driver is not installed that is an error which says what to install.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ws_pool._sql.manager import atomic
    from ws_pool.base import BasePoolManager
    from ws_pool.cache import CacheWrap, LRUCache, ShareCache
    from ws_pool.es import ElasticsearchPool, ElasticsearchPoolManager, es_pool_manager
    from ws_pool.events import RedisEventBus, StreamEventBus
    from ws_pool.health import HealthChecker, ProcessHealthChecker
    from ws_pool.http import HttpPool, HttpPoolManager, http_pool_manager
    from ws_pool.mongo import MongoPool, MongoPoolManager, mongo_pool_manager
    from ws_pool.mysql import (
        MysqlPool,
        MysqlPoolManager,
        Prepared,
        Result,
        Row,
        SqlClient,
        SqlPoolManager,
        mysql_pool_manager,
        sql_pool_manager,
    )
    from ws_pool.pool import Connector, Lease, Pool, PoolStatistics
    from ws_pool.postgres import PostgresPool, PostgresPoolManager
    from ws_pool.redis import RedisPool, RedisPoolManager, redis_pool_manager
    from ws_pool.sqlite import SqlitePool, SqlitePoolManager

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
