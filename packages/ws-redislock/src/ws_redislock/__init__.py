"""Redis locks that report the loss of a lease to its holder, and rate limiters."""

from ws_redislock._lock.held import Held as Held
from ws_redislock.claims import RunClaim as RunClaim
from ws_redislock.claims import RunClaims as RunClaims
from ws_redislock.errors import ConfigError as ConfigError
from ws_redislock.errors import LockLost as LockLost
from ws_redislock.errors import LockNotAcquired as LockNotAcquired
from ws_redislock.errors import UnavailableError as UnavailableError
from ws_redislock.errors import UsageError as UsageError
from ws_redislock.leader import LeaderElection as LeaderElection
from ws_redislock.leader import Term as Term
from ws_redislock.limiter import FrequencyLimiter as FrequencyLimiter
from ws_redislock.limiter import SlidingWindowLimiter as SlidingWindowLimiter
from ws_redislock.limiter import TokenBucketLimiter as TokenBucketLimiter
from ws_redislock.limiter import Verdict as Verdict
from ws_redislock.multi import MultiLock as MultiLock
from ws_redislock.mutex import MutexLock as MutexLock
from ws_redislock.observe import CountingObserver as CountingObserver
from ws_redislock.observe import LockObserver as LockObserver
from ws_redislock.rwlock import ReadWriteLock as ReadWriteLock
from ws_redislock.semaphore import Semaphore as Semaphore

__all__: tuple[str, ...] = (
    "ConfigError",
    "CountingObserver",
    "FrequencyLimiter",
    "Held",
    "LeaderElection",
    "LockLost",
    "LockNotAcquired",
    "LockObserver",
    "MultiLock",
    "MutexLock",
    "ReadWriteLock",
    "RunClaim",
    "RunClaims",
    "Semaphore",
    "SlidingWindowLimiter",
    "Term",
    "TokenBucketLimiter",
    "UnavailableError",
    "UsageError",
    "Verdict",
)
