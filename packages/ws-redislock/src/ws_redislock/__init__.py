"""Redis locks that tell their holder when the lease is lost, and rate limiters."""

from ws_redislock._held import Held as Held
from ws_redislock.errors import LockLost as LockLost
from ws_redislock.errors import LockNotAcquired as LockNotAcquired
from ws_redislock.limiter import FrequencyLimiter as FrequencyLimiter
from ws_redislock.limiter import SlidingWindowLimiter as SlidingWindowLimiter
from ws_redislock.limiter import TokenBucketLimiter as TokenBucketLimiter
from ws_redislock.limiter import Verdict as Verdict
from ws_redislock.mutex import MutexLock as MutexLock

__all__: tuple[str, ...] = (
    "FrequencyLimiter",
    "Held",
    "LockLost",
    "LockNotAcquired",
    "MutexLock",
    "SlidingWindowLimiter",
    "TokenBucketLimiter",
    "Verdict",
)
