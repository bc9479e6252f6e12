# Written by tools/generate_sync_locks.py from ws_redislock/__init__.py; do not edit.
"""Redis locks that report the loss of a lease to its holder, and rate limiters."""

from ws_redislock.sync._lock.held import Held as Held
from ws_redislock.sync.claims import RunClaim as RunClaim
from ws_redislock.sync.claims import RunClaims as RunClaims
from ws_redislock.errors import ConfigError as ConfigError
from ws_redislock.errors import LockLost as LockLost
from ws_redislock.errors import LockNotAcquired as LockNotAcquired
from ws_redislock.errors import UnavailableError as UnavailableError
from ws_redislock.errors import UsageError as UsageError
from ws_redislock.sync.leader import LeaderElection as LeaderElection
from ws_redislock.sync.leader import Term as Term
from ws_redislock.sync.limiter import FrequencyLimiter as FrequencyLimiter
from ws_redislock.sync.limiter import SlidingWindowLimiter as SlidingWindowLimiter
from ws_redislock.sync.limiter import TokenBucketLimiter as TokenBucketLimiter
from ws_redislock.sync.limiter import Verdict as Verdict
from ws_redislock.sync.multi import MultiLock as MultiLock
from ws_redislock.sync.mutex import MutexLock as MutexLock
from ws_redislock.observe import CountingObserver as CountingObserver
from ws_redislock.observe import LockObserver as LockObserver
from ws_redislock.sync.rwlock import ReadWriteLock as ReadWriteLock
from ws_redislock.sync.semaphore import Semaphore as Semaphore

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
