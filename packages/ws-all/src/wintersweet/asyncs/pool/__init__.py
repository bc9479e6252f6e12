"""Named pools and the health of all worker processes as in 1.x, over `ws_pool`."""

from wintersweet.asyncs.pool.health import HealthChecker as HealthChecker
from wintersweet.asyncs.pool.health import ProcessHealthChecker as ProcessHealthChecker
from wintersweet.asyncs.pool.mongo import mongo_pool_manager as mongo_pool_manager
from wintersweet.asyncs.pool.mysql import mysql_pool_manager as mysql_pool_manager
from wintersweet.asyncs.pool.redis import redis_pool_manager as redis_pool_manager

__all__ = (
    "HealthChecker",
    "ProcessHealthChecker",
    "mongo_pool_manager",
    "mysql_pool_manager",
    "redis_pool_manager",
)
