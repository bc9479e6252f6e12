"""Named pools and the health of all worker processes: `ws_pool`, `ws_pool.health`."""

from ws_pool.health import HealthChecker as HealthChecker
from ws_pool.health import ProcessHealthChecker as ProcessHealthChecker
from ws_pool.mongo import mongo_pool_manager as mongo_pool_manager
from ws_pool.mysql import mysql_pool_manager as mysql_pool_manager
from ws_pool.redis import redis_pool_manager as redis_pool_manager

__all__ = (
    "HealthChecker",
    "ProcessHealthChecker",
    "mongo_pool_manager",
    "mysql_pool_manager",
    "redis_pool_manager",
)
