"""MongoDB pools: `ws_pool.mongo`."""

from ws_pool.mongo import MongoPool as MongoPool
from ws_pool.mongo import MongoPoolManager as MongoPoolManager
from ws_pool.mongo import convert_mongo_id as convert_mongo_id
from ws_pool.mongo import mongo_pool_manager as mongo_pool_manager

__all__ = (
    "MongoPool",
    "MongoPoolManager",
    "convert_mongo_id",
    "mongo_pool_manager",
)
