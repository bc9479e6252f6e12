"""Results shared among callers and processes."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import logging
import math
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, cast, overload

from ws_core.backoff import spread
from ws_core.metrics import Sample, register, sample
from ws_core.sources import client_getter
from ws_pool._cache.guard import StoreGuard
from ws_pool._cache.keys import KeyMaker, own_key_text, shorten
from ws_pool._cache.lru import check, check_function, check_name
from ws_pool._cache.single_flight import Flight, Flights
from ws_pool._cache.stores import Codec, Found, LocalStore, Missing, RedisStore
from ws_pool.errors import ConfigError, UsageError

logger = logging.getLogger("ws_pool.cache")

P = ParamSpec("P")
Q = ParamSpec("Q")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_COMPUTING = 60.0  # seconds that an invalidation is remembered beyond the time a value is kept


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """
    Counters of a cache.

    Args:
        hits: Calls answered from the cache.
        misses: Calls that ran the function.
        shared: Calls that waited for another one's result.
        refreshes: Runs of the function beside a call that got an older value.
        rejected: Results not stored, because they were invalidated or stored meanwhile.
        errors: Failures of the store or of the lock.
        bypassed: Calls that ran the function because Redis is left alone after failures.
    """

    hits: int
    misses: int
    shared: int
    refreshes: int
    rejected: int
    errors: int
    bypassed: int = 0

    def samples(self) -> tuple[Sample, ...]:
        """Return the counters as samples of the metrics in `ws_core.metrics`, of all caches together."""
        results = {"hit": self.hits, "miss": self.misses, "shared": self.shared, "bypassed": self.bypassed}
        found = (
            sample("wintersweet.cache.requests", count, attributes={"wintersweet.cache.result": result})
            for result, count in results.items()
        )
        return (*found, sample("wintersweet.cache.errors", self.errors))


class CachedFunction(Protocol[P, T_co]):
    """A coroutine function with a cache; what `ShareCache` makes of a function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T_co]:
        """Get the result, from the cache or by running the function."""
        ...

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Forget the result of a call; a call that begins after this never gets one from before."""

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        """Run the function now and store the result."""
        ...

    @overload
    def __get__(self, instance: None, owner: type[object] | None = None) -> Self: ...

    @overload
    def __get__(
        self: CachedFunction[Concatenate[Any, Q], T], instance: object, owner: type[object] | None = None
    ) -> Callable[Q, Coroutine[Any, Any, T]]: ...

    def __get__(self, instance: object, owner: type[object] | None = None) -> object:
        """Bind a method, as for every function."""
        ...


class ShareCache:
    """
    Caches results of coroutine functions, and runs equal calls only once at a time.

    Concurrent calls with equal arguments wait for the first one's result. If it raises, all of
    them get the exception, and nothing is cached. If it is cancelled, the next of them runs the
    function. With ``redis``, all processes share the results; with ``lock``, also the running.

    The cache never fails a call, and a failing Redis costs little: each operation has a time of
    ``redis_timeout``, and after failures Redis is left alone for a second. Meanwhile, and when the lock
    fails or is lost, the function runs, which is logged and counted. An entry that the codec cannot read
    is replaced.

    Results shared by several callers are the same object: don't change them. With ``redis`` they
    have been through the codec, for the first caller too, so that all see the same types.

    Args:
        tag: Names the results, so that they can be invalidated together; no braces.
        ttl: Seconds that a result is fresh.
        redis: A client, a `RedisPool` or its manager, or a function that returns one; None to
            keep results in this process.
        cache_none: Whether None is a result worth keeping. Other falsy results always are.
        jitter: Each result lives up to this part of ``ttl`` shorter, so that not all expire at once.
        stale: Seconds beyond ``ttl`` in which the old result is returned while a new one is computed.
        early: How eagerly results are renewed before they expire: at 1.0 a result that takes a
            second to compute is renewed about a second before, at random (the XFetch rule); 0
            for never.
        key: Makes the key text from the call's arguments, in place of all of them. A method's object is
            part of the key: by its method ``__cache_key__()`` if it has one, else, without ``redis``, by
            its identity.
        condition: Returns whether a result is worth keeping; by default all are.
        codec: How values become bytes for Redis; the module `json` by default.
        lock: Makes an async context manager from a name, such as
            ``lambda name: MutexLock(redis, name, 30).hold(timeout=10)``: only its holder computes.
        maxsize: How many results are kept in this process without ``redis``.
        prefix: What all keys in Redis begin with.
        redis_timeout: Seconds that an operation on Redis may take before the call goes on without.

    Raises:
        ConfigError: An option is wrong.

    Example:
        ```python
        from ws_pool.cache import ShareCache

        runs = 0

        @ShareCache("items", ttl=30)
        async def item(number: int) -> dict[str, int]:
            global runs
            runs += 1
            return {"number": number}

        assert await item(1) == await item(number=1) == {"number": 1}
        assert runs == 1
        await item.invalidate(1)
        await item(1)
        assert runs == 2
        ```
    """

    def __init__(
        self,
        tag: str,
        *,
        ttl: float = 60.0,
        redis: object = None,
        cache_none: bool = True,
        jitter: float = 0.1,
        stale: float = 0.0,
        early: float = 0.0,
        key: Callable[..., str] | None = None,
        condition: Callable[[Any], bool] | None = None,  # Any: the function's results
        codec: Codec | None = None,
        lock: Callable[[str], AbstractAsyncContextManager[object]] | None = None,
        maxsize: int = 1024,
        prefix: str = "ws:cache",
        redis_timeout: float = 0.05,
        clock: Callable[[], float] = time.time,
    ) -> None:
        for option, text in (("tag", tag), ("prefix", prefix)):
            check_name(option, text)

        for option, function in (("key", key), ("condition", condition), ("lock", lock), ("clock", clock)):
            if function is not None or option == "clock":
                check_function(option, function)

        if not isinstance(cache_none, bool):
            raise ConfigError(f"cache_none={cache_none!r} is wrong: give True or False", option="cache_none")

        if codec is not None and not all(callable(getattr(codec, part, 0)) for part in ("dumps", "loads")):
            raise ConfigError(f"codec={codec!r} is wrong: it needs dumps() and loads()", option="codec")

        check("ttl", ttl, more_than=0)
        check("jitter", jitter, at_most=1)
        check("stale", stale)
        check("early", early)
        check("maxsize", maxsize, more_than=0)
        check("redis_timeout", redis_timeout, more_than=0)
        self.tag = tag
        self._ttl, self._jitter, self._stale, self._early = ttl, jitter, stale, early
        self._cache_none = cache_none
        self._key = key
        self._condition = condition
        self._codec: Codec = cast("Codec", json) if codec is None else codec
        self._lock = lock
        self._prefix = prefix
        self._clock = clock
        self._local = LocalStore(maxsize, clock) if redis is None else None
        self._store: LocalStore | RedisStore = (
            RedisStore(client_getter(redis, "mget"), self._codec, prefix)
            if self._local is None
            else self._local
        )
        self._guard = StoreGuard(None if self._local is not None else redis_timeout)
        self._budget = redis_timeout
        self._flights = Flights()
        self._renewals: dict[tuple[int, str], asyncio.Task[None]] = {}
        self._functions: dict[str, weakref.WeakSet[Callable[..., object]]] = {}
        self._named = 0
        self._hits = self._misses = self._refreshes = self._rejected = self._errors = self._bypassed = 0
        register(self)

    def __repr__(self) -> str:
        where = "in this process" if self._local is not None else "in Redis"
        return f"<ShareCache {self.tag!r} {where}, ttl {self._ttl:g} s>"

    def __call__(self, function: Callable[P, Awaitable[T]]) -> CachedFunction[P, T]:
        """Return a coroutine function with a cache."""
        if not inspect.iscoroutinefunction(function):
            raise UsageError(f"ShareCache is for coroutine functions, not {function!r}; see CacheWrap")

        make_key = KeyMaker(function, identities=self._local is not None)
        name = self._name_of(function)
        own_key = self._key

        def key_of(args: tuple[object, ...], kwargs: dict[str, object]) -> str:
            text = make_key(args, kwargs) if own_key is None else own_key_text(own_key, args, kwargs)
            return f"{name}{shorten(text)}"

        @functools.wraps(function)
        async def cached(*args: P.args, **kwargs: P.kwargs) -> T:
            key = key_of(args, kwargs)

            if self._local is not None:
                found = self._local.find(self.tag, key)

                if isinstance(found, Found) and not self._is_due(found):
                    self._hits += 1
                    return cast("T", found.value)

            compute = functools.partial(function, *args, **kwargs)
            return cast("T", await self._flights.run(key, lambda flight: self._lead(flight, key, compute)))

        async def invalidate(*args: P.args, **kwargs: P.kwargs) -> None:
            key = key_of(args, kwargs)

            try:
                await self._store.drop(self.tag, key, self._ttl + self._stale + _COMPUTING)
            finally:
                # Last: a call that began before the drop may have found the old value, and must not
                # be joined by one that begins after it.
                self._flights.detach(key)

        async def refresh(*args: P.args, **kwargs: P.kwargs) -> T:
            key = key_of(args, kwargs)
            seen = await self._look_up(key)
            compute = functools.partial(function, *args, **kwargs)
            return cast("T", await self._compute(None, key, compute, seen))

        cached.invalidate = invalidate  # type: ignore[attr-defined]
        cached.refresh = refresh  # type: ignore[attr-defined]
        return cast("CachedFunction[P, T]", cached)

    def _name_of(self, function: Callable[..., object]) -> str:
        """Return the name of a function in this cache's keys."""
        name = f"{function.__module__}.{function.__qualname__}"
        others = self._functions.setdefault(name, weakref.WeakSet())
        number = len(others)
        others.add(function)

        # A factory makes functions of one name that differ in what they have closed over.
        if not number or self._key is not None:
            return name

        if self._local is not None:
            self._named += 1
            return f"{name}#{self._named}"

        if not getattr(function, "__closure__", None):
            return name  # defined again, as in a notebook or by a reload

        message = (
            f"cache {self.tag!r} has another function {name}, and in Redis their results would be taken for "
            f"one another's: give each a ShareCache with a tag of its own, or give key="
        )
        raise UsageError(message, function=name)

    async def invalidate(self) -> None:
        """Forget all results of the tag; a call that begins after this never gets one from before."""
        try:
            await self._store.drop_tag(self.tag)
        finally:
            self._flights.detach()

    async def drain(self) -> None:
        """Wait for results that are being renewed in the background."""
        here = id(asyncio.get_running_loop())

        while mine := [task for (loop, _), task in self._renewals.items() if loop == here]:
            await asyncio.wait(mine)

    def statistics(self) -> CacheStatistics:
        """Return the counters."""
        return CacheStatistics(
            self._hits,
            self._misses,
            self._flights.shared,
            self._refreshes,
            self._rejected,
            self._errors,
            self._bypassed,
        )

    async def _lead(self, flight: Flight, key: str, compute: Callable[[], Awaitable[object]]) -> object:
        """Answer a call for all that wait: from the cache, or by running the function."""
        found = await self._look_up(key)

        if isinstance(found, Found):
            self._hits += 1

            if self._is_due(found):
                self._renew(key, compute, found)

            return found.value

        if (renewal := self._renewals.get((id(asyncio.get_running_loop()), key))) is not None:
            # The old result expired while a new one is being computed already.
            await asyncio.wait([renewal])
            found = await self._look_up(key)

            if isinstance(found, Found):
                self._hits += 1
                return found.value

        # Without an answer of the store its lock, too, would only cost time.
        if self._lock is None or found is None:
            return await self._compute(flight, key, compute, found)

        async def only_one() -> object:
            again = await self._look_up(key)

            if isinstance(again, Found):
                self._hits += 1
                return again.value

            return await self._compute(flight, key, compute, again)

        ran, value = await self._locked(key, only_one)
        return value if ran else await self._compute(flight, key, compute, found)

    async def _locked(self, key: str, body: Callable[[], Awaitable[object]]) -> tuple[bool, object]:
        """Run a body under the lock; return whether it ran to its end, and its result."""
        assert self._lock is not None
        result: tuple[bool, object] = (False, None)
        own: Exception | None = None

        # Whatever the lock does, it must not fail the call: it may be refused, its loss may cancel the
        # body, and its release may fail. Only the body's own error is the caller's.
        try:
            async with (
                asyncio.timeout(None) as limit,
                self._lock(f"{self._prefix}:lock:{self.tag}:{key}"),
            ):
                try:
                    result = True, await body()
                except Exception as error:  # noqa: BLE001 - the function is foreign code
                    own = error

                # The store is down. As a rule the lock is on the same server, and its release would wait
                # for as long as the lock's own timeouts allow.
                if self._guard.failing:
                    limit.reschedule(asyncio.get_running_loop().time() + self._budget)
        except Exception as error:  # noqa: BLE001 - the lock is foreign code
            self._failed("lock", error)

        if own is not None:
            raise own

        return result

    async def _compute(
        self,
        flight: Flight | None,
        key: str,
        compute: Callable[[], Awaitable[object]],
        seen: Found | Missing | None,
    ) -> object:
        """Run the function and store its result, for the time that it took too."""
        self._misses += 1
        began = time.perf_counter()
        value = await compute()
        cost = time.perf_counter() - began
        stored = value

        if self._local is None:
            payload = self._codec.dumps(value)
            stored = payload if isinstance(payload, bytes) else payload.encode()
            value = self._codec.loads(stored)

        # An invalidation from before that time is forgotten: this value may be older.
        late = cost >= self._ttl + self._stale + _COMPUTING

        if seen is not None and not late and self._is_worth_keeping(value):
            ttl = spread(self._ttl, 1.0 - self._jitter, 1.0)
            found = Found(stored, self._clock() + ttl, cost, seen.mark)

            # Refused because of an invalidation, here or in another process: calls that have joined
            # this one may have begun after it, and look again.
            if not await self._put(key, found, ttl + self._stale) and flight is not None:
                flight.outdated = True

        return value

    def _is_worth_keeping(self, value: object) -> bool:
        """Decide whether a result is stored."""
        if value is None and not self._cache_none:
            return False

        try:
            return self._condition is None or bool(self._condition(value))
        except Exception as error:  # noqa: BLE001 - the condition is foreign code
            self._failed("judge a result", error)
            return False

    def _is_due(self, found: Found) -> bool:
        """Return whether a value should be renewed: it is stale, or by chance a little before."""
        now = self._clock()

        if self._early:
            # XFetch: how long before its end a value is renewed is exponentially distributed, so that of
            # many processes about one renews it.
            now -= found.cost * self._early * math.log(1.0 - spread(1.0, 0.0, 1.0))

        return now >= found.fresh_until

    def _renew(self, key: str, compute: Callable[[], Awaitable[object]], seen: Found) -> None:
        """Compute anew in the background, unless that is in progress."""
        renewal_key = (id(asyncio.get_running_loop()), key)

        if renewal_key in self._renewals:
            return

        async def renew() -> None:
            try:
                if self._lock is None:
                    await self._compute(None, key, compute, seen)
                else:
                    await self._locked(key, lambda: self._compute(None, key, compute, seen))
            except Exception:
                logger.exception("cache %r: a result could not be renewed; the old one is kept", self.tag)
            finally:
                del self._renewals[renewal_key]

        self._refreshes += 1
        self._renewals[renewal_key] = asyncio.create_task(renew(), name=f"renew {self.tag} {key}")

    async def _look_up(self, key: str) -> Found | Missing | None:
        """Look a value up; None when the store does not answer."""
        if not self._guard.admit():
            self._bypassed += 1
            return None

        try:
            found = await self._guard.run(self._store.get, self.tag, key)
        except Exception as error:  # noqa: BLE001 - a cache that is down must not stop the function
            self._failed("read", error)
            return None

        if isinstance(found, Missing) and found.error is not None:
            self._failed("decode an entry", found.error)

        return found

    async def _put(self, key: str, found: Found, keep: float) -> bool:
        """Store a value; return False when it was invalidated or stored meanwhile."""
        try:
            stored = await self._guard.run(self._store.put, self.tag, key, found, keep)
        except Exception as error:  # noqa: BLE001 - a cache that is down must not stop the function
            self._failed("write", error)
            return True

        self._rejected += not stored
        return stored

    def _failed(self, verb: str, error: Exception) -> None:
        self._errors += 1
        logger.warning("cache %r: cannot %s, going on without: %r", self.tag, verb, error)
