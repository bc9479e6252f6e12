"""Redis pools, locks, limiters and the event bus: `ws_pool.redis`, `ws_redislock`, `ws_pool.events`."""

from ws_pool.events import RedisEventBus as RedisEventBus
from ws_pool.redis import RedisPool as RedisPool
from ws_pool.redis import RedisPoolManager as RedisPoolManager
from ws_pool.redis import redis_pool_manager as redis_pool_manager
from ws_redislock import FrequencyLimiter as FrequencyLimiter
from ws_redislock import MutexLock as MutexLock

__all__ = (
    "FrequencyLimiter",
    "MutexLock",
    "RedisEventBus",
    "RedisPool",
    "RedisPoolManager",
    "redis_pool_manager",
)
