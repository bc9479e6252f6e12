# Written by tools/generate_sync_locks.py from ws_redislock/limiter.py; do not edit.
"""Rate limiters: one script per hit, whole microseconds, the server's clock.

========================  ====================================  ===========================
limiter                   promises                              costs
========================  ====================================  ===========================
`FrequencyLimiter`        never more than the limit in any      17 small counters per key
                          window; frees at 1/16 of the window
`SlidingWindowLimiter`    the same, exact to the microsecond    one entry per hit, 30 bytes
`TokenBucketLimiter`      an average rate, with a burst         one number per key
========================  ====================================  ===========================

A hit whose reply was lost is sent again, so that it may count twice, never not at all.
"""

from __future__ import annotations

import functools
import time
from collections import OrderedDict
from fractions import Fraction
from typing import Literal, NamedTuple, TypeAlias

from ws_redislock._lease.lease import Clock
from ws_redislock.sync._redis.clients import RedisSource
from ws_redislock._redis.keys import PREFIX, check_name, check_prefix, plain, tagged
from ws_redislock.sync._redis.script_client import ScriptUser
from ws_redislock._redis.scripts import load
from ws_redislock.errors import ConfigError, UnavailableError, UsageError

__all__ = ("FrequencyLimiter", "RateLimiter", "SlidingWindowLimiter", "TokenBucketLimiter", "Verdict")

OnError: TypeAlias = Literal["open", "closed", "raise"]

LARGEST = 2**52
"""Lua counts in doubles; below this every whole number is exact."""


class Verdict(NamedTuple):
    """
    The answer to one hit.

    Attributes:
        allowed: Whether the hit is within the limit; only then it was counted.
        remaining: How many more hits of cost 1 would be allowed now.
        retry_after: Seconds until a hit of the same cost can be allowed; 0 when it was.
        reset_after: Seconds until the key is as if it had never been hit.
        degraded: Whether Redis did not answer, and the limiter's `on_error` decided.
    """

    allowed: bool
    remaining: int
    retry_after: float
    reset_after: float
    degraded: bool = False


class RateLimiter(ScriptUser):
    """
    What the three limiters share; the arguments that are not described here are as of `FrequencyLimiter`.

    Args:
        redis: A client of redis-py, a pool that holds one, a manager of pools or the name of one, or a URL.
        script: Name of the limiter's script.
        kind: Prefix of its keys, with what must not be mixed up.
        args: The script's arguments before the cost.
        most: The largest cost that can ever be allowed.
    """

    def __init__(
        self,
        redis: RedisSource,
        *,
        script: str,
        kind: str,
        args: tuple[int, ...],
        most: int,
        namespace: str,
        key_prefix: str,
        on_error: OnError,
        timeout: float,
        deny_cache: int,
        clock: Clock,
    ) -> None:
        if on_error not in ("open", "closed", "raise"):
            raise ConfigError(f"on_error must be 'open', 'closed' or 'raise', not {on_error!r}")

        _count("deny_cache", deny_cache, least=0)
        _positive("timeout", timeout)
        super().__init__(redis, "limiter")
        self._script_name = script
        self._prefix = check_prefix(key_prefix)
        self._kind = kind if namespace == "" else f"{kind}:{plain(check_name(namespace, 'namespace'))}"
        self._args = args
        self._most = most
        self._on_error = on_error
        self._timeout = timeout
        self._cache_size = deny_cache
        self._denied: OrderedDict[tuple[str, int], tuple[float, Verdict]] = OrderedDict()
        self._clock = clock

    def hit(self, key: str, cost: int = 1) -> Verdict:
        """
        Count a hit if it is within the limit.

        Args:
            key: What is limited, such as a user's id; 1 to 512 bytes of UTF-8.
            cost: How much the hit counts.

        Returns:
            The verdict.

        Raises:
            UsageError: The cost can never be allowed.
            UnavailableError: Redis did not answer, and `on_error` is "raise".
        """
        return self._ask(key, _count("cost", cost))

    def peek(self, key: str) -> Verdict:
        """
        Look without counting.

        Args:
            key: What is limited.

        Returns:
            What is left; `allowed` says whether a hit of cost 1 would be allowed now.
        """
        verdict = self._ask(key, 0)

        if verdict.degraded:
            return verdict

        return Verdict(verdict.remaining > 0, verdict.remaining, 0.0, verdict.reset_after, verdict.degraded)

    def is_limited(self, key: str, incr_num: int = 1) -> bool:
        """
        Count a hit, and return whether it is over the limit.

        Args:
            key: What is limited.
            incr_num: How much the hit counts.

        Returns:
            True when the hit must be refused.
        """
        return not (self.hit(key, incr_num)).allowed

    def reset(self, key: str) -> None:
        """Forget all hits of a key."""
        for known in [known for known in self._denied if known[0] == key]:
            del self._denied[known]

        self._bind().delete(self._key(key), self._timeout, what=("limiter key", key))

    def _forget(self) -> None:
        self._denied.clear()

    def _key(self, key: str) -> bytes:
        return _redis_key(
            self._prefix, self._kind, key if type(key) is str else plain(check_name(key, "limiter key"))
        )

    def _ask(self, key: str, cost: int) -> Verdict:
        redis_key = self._key(key)

        if cost > self._most:
            raise UsageError(
                f"a hit of cost {cost} can never be allowed: at most {self._most} fit at once; "
                f"raise the limit or split it",
                cost=cost,
            )

        scripts = self._bind()  # before the look at what is known, which another pool's start makes void

        if self._denied and (known := self._known_denial(key, cost)) is not None:
            return known

        try:
            reply = scripts.hit(
                load(self._script_name),
                redis_key,
                self._args,
                cost,
                what=("limiter key", key),
                within=self._timeout,
            )
        except UnavailableError:
            if self._on_error == "raise":
                raise

            allowed = self._on_error == "open"
            return Verdict(allowed, 0, 0.0 if allowed else 1.0, 0.0, degraded=True)

        verdict = Verdict(reply[0] == 1, reply[1], reply[2] / 1e6, reply[3] / 1e6)

        if self._cache_size and not verdict.allowed:
            self._denied[key, cost] = (self._clock() + verdict.retry_after, verdict)
            self._denied.move_to_end((key, cost))

            if len(self._denied) > self._cache_size:
                self._denied.popitem(last=False)

        return verdict

    def _known_denial(self, key: str, cost: int) -> Verdict | None:
        known = self._denied.get((key, cost))

        if known is None:
            return None

        until, verdict = known
        left = until - self._clock()

        if left <= 0:
            del self._denied[key, cost]
            return None

        passed = verdict.retry_after - left
        return Verdict(False, verdict.remaining, left, max(left, verdict.reset_after - passed))


class FrequencyLimiter(RateLimiter):
    """
    At most so many hits in any window of so many seconds.

    The window slides in sixteenths: no window ever holds more than the limit, and room comes
    back at most a sixteenth of the window later than with an exact log.

    Args:
        redis: A client of redis-py, a pool that holds one, a manager of pools or the name of one, or a URL.
        granularity: Length of the window in seconds.
        limit: How many hits a window may hold.
        namespace: Keeps the keys of several uses apart.
        key_prefix: With what the keys in Redis begin; users of one key agree on it.
        on_error: What to do when Redis does not answer: "open", "closed" or "raise".
        timeout: Seconds to wait for Redis.
        deny_cache: For how many denied keys to deny further hits without asking Redis.
        clock: The clock of that cache.

    Example:
        ```python
        from redis import Redis
        from ws_redislock.sync import FrequencyLimiter

        redis = Redis.from_url("redis://localhost:6379/0")
        limiter = FrequencyLimiter(redis, 60, 2)

        assert [limiter.is_limited("user:7") for _ in range(3)] == [False, False, True]
        print("try again in", (limiter.hit("user:7")).retry_after, "s")

        redis.close()
        ```
    """

    def __init__(
        self,
        redis: RedisSource,
        granularity: float,
        limit: int,
        *,
        namespace: str = "",
        key_prefix: str = PREFIX,
        on_error: OnError = "raise",
        timeout: float = 1.0,
        deny_cache: int = 0,
        clock: Clock = time.monotonic,
    ) -> None:
        window = _window(granularity)
        super().__init__(
            redis,
            script="limit_frequency",
            kind=f"f:{window}:{_count('limit', limit)}",
            args=(window, limit),
            most=limit,
            namespace=namespace,
            key_prefix=key_prefix,
            on_error=on_error,
            timeout=timeout,
            deny_cache=deny_cache,
            clock=clock,
        )


class SlidingWindowLimiter(RateLimiter):
    """
    At most so many hits in any window of so many seconds, exact to the microsecond.

    Redis keeps one entry of some 30 bytes per hit in the window. What a hit costs does not grow
    with them: entries that left the window are found by halving, and dropped in one piece.

    Args:
        redis: A client of redis-py, a pool that holds one, a manager of pools or the name of one, or a URL.
        window: Length of the window in seconds.
        limit: How many hits a window may hold.
        namespace: Keeps the keys of several uses apart.
        key_prefix: With what the keys in Redis begin; users of one key agree on it.
        on_error: What to do when Redis does not answer: "open", "closed" or "raise".
        timeout: Seconds to wait for Redis.
        deny_cache: For how many denied keys to deny further hits without asking Redis.
        clock: The clock of that cache.

    Example:
        ```python
        from ws_redislock.sync import SlidingWindowLimiter

        with SlidingWindowLimiter("redis://localhost:6379/0", 10, 5) as limiter:
            verdict = limiter.hit("user:8", cost=3)
            assert verdict.allowed and verdict.remaining == 2
        ```
    """

    def __init__(
        self,
        redis: RedisSource,
        window: float,
        limit: int,
        *,
        namespace: str = "",
        key_prefix: str = PREFIX,
        on_error: OnError = "raise",
        timeout: float = 1.0,
        deny_cache: int = 0,
        clock: Clock = time.monotonic,
    ) -> None:
        span = _window(window)
        super().__init__(
            redis,
            script="limit_sliding",
            kind=f"w:{span}:{_count('limit', limit)}",
            args=(span, limit),
            most=limit,
            namespace=namespace,
            key_prefix=key_prefix,
            on_error=on_error,
            timeout=timeout,
            deny_cache=deny_cache,
            clock=clock,
        )


class TokenBucketLimiter(RateLimiter):
    """
    An average rate with room for bursts: a bucket of tokens that is refilled steadily.

    It is computed as a generic cell rate algorithm (ITU-T I.371) in whole numbers, so that no
    rate from one per hour to hundreds of thousands per second drifts.

    Args:
        redis: A client of redis-py, a pool that holds one, a manager of pools or the name of one, or a URL.
        rate: Tokens per `per` seconds.
        burst: Size of the bucket; how much may come at once after a pause.
        per: Seconds to which the rate refers.
        namespace: Keeps the keys of several uses apart.
        key_prefix: With what the keys in Redis begin; users of one key agree on it.
        on_error: What to do when Redis does not answer: "open", "closed" or "raise".
        timeout: Seconds to wait for Redis.
        deny_cache: For how many denied keys to deny further hits without asking Redis.
        clock: The clock of that cache.

    Example:
        ```python
        from ws_redislock.sync import TokenBucketLimiter

        with TokenBucketLimiter("redis://localhost:6379/0", rate=0.5, burst=2) as limiter:
            allowed = [(limiter.hit("user:9")).allowed for _ in range(3)]
            assert allowed == [True, True, False]
        ```
    """

    def __init__(
        self,
        redis: RedisSource,
        rate: float,
        burst: int,
        *,
        per: float = 1.0,
        namespace: str = "",
        key_prefix: str = PREFIX,
        on_error: OnError = "raise",
        timeout: float = 1.0,
        deny_cache: int = 0,
        clock: Clock = time.monotonic,
    ) -> None:
        tokens, period = _rate(rate, per)
        _count("burst", burst)

        if burst * max(tokens, period) >= LARGEST:
            raise ConfigError(
                f"burst={burst} is too large for a rate of {rate} per {per} s: it cannot be exact"
            )

        super().__init__(
            redis,
            script="limit_bucket",
            kind=f"t:{tokens}:{period}:{burst}",
            args=(period, tokens, burst),
            most=burst,
            namespace=namespace,
            key_prefix=key_prefix,
            on_error=on_error,
            timeout=timeout,
            deny_cache=deny_cache,
            clock=clock,
        )


@functools.lru_cache(maxsize=4096)
def _redis_key(prefix: str, kind: str, key: str) -> bytes:
    return tagged(prefix, kind, check_name(key, "limiter key")).encode()


def _positive(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ConfigError(f"{name} must be a number above 0, not {value!r}", option=name, value=value)

    return value


def _count(name: str, value: object, *, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < LARGEST:
        raise ConfigError(
            f"{name} must be a whole number from {least}, not {value!r}", option=name, value=value
        )

    return value


def _window(seconds: float) -> int:
    microseconds = round(_positive("the window", seconds) * 1e6)

    if not 16 <= microseconds < LARGEST:
        raise ConfigError(f"a window must be between 16 µs and 140 years, not {seconds!r} s", value=seconds)

    return microseconds


def _rate(rate: float, per: float) -> tuple[int, int]:
    """Return the rate as whole tokens per whole microseconds, exact for decimal fractions."""
    exact = Fraction(str(_positive("rate", rate))) / (Fraction(str(_positive("per", per))) * 1_000_000)
    exact = exact.limit_denominator(10**12)

    if not exact.numerator or exact.numerator > 10**9:
        raise ConfigError(
            f"a rate of {rate!r} per {per!r} s is out of bounds: at least one per 11 days", value=rate
        )

    return exact.numerator, exact.denominator
