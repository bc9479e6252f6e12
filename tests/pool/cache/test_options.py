"""Keys made of arguments, and options that are refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis

from tests.pool.cache._support import Runs
from ws_pool._cache.keys import KeyMaker, shorten
from ws_pool.cache import CacheWrap, ShareCache
from ws_pool.errors import ConfigError, UsageError
from ws_pool.redis import RedisPool


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Point:
    x: int
    y: list[int]


class TestKeys:
    def test_equal_calls(self) -> None:
        """However the arguments are passed, equal ones give one key."""

        def f(a: object, b: object = 2, *rest: object, c: object = 3, **more: object) -> None:
            pass

        make = KeyMaker(f)
        assert make((1,), {}) == make((1, 2), {}) == make((), {"c": 3, "a": 1})
        assert make((1,), {"y": 1, "x": 2}) == make((1,), {"x": 2, "y": 1})
        assert make(({"b": 1, "a": {3, 1}},), {}) == make(({"a": {1, 3}, "b": 1},), {})

    def test_different_calls(self) -> None:
        """Values that only look alike give different keys."""
        make = KeyMaker(lambda a: a)
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        values: list[object] = [
            1, True, 1.0, "1", b"1", None, "None", (1,), ((1,),), [1, 2], {1: 2}, {"1": 2}, {1, 2},
            Colour.RED, Colour.BLUE, moment, moment.date(), Decimal(1), UUID(int=1),
            Point(1, [2]), Point(1, [3]),
        ]  # fmt: skip
        keys = [make((value,), {}) for value in values]
        assert len(set(keys)) == len(values)
        assert make((Point(1, [2]),), {}) == make((Point(1, [2]),), {})

    def test_refusals(self) -> None:
        """An object without a value of its own is refused, and so are arguments that do not fit."""
        make = KeyMaker(lambda a: a)

        with pytest.raises(UsageError, match="cannot be part of a cache key"):
            make((object(),), {})

        with pytest.raises(UsageError, match="type"):
            make(([Point],), {})

        with pytest.raises(TypeError):
            make((1, 2), {})

    def test_shorten(self) -> None:
        """Short keys stay readable; odd text is not a obstacle."""
        assert shorten("x" * 160) == "x" * 160
        assert len(shorten("\ud800" * 200)) == 40


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "part"),
        [
            ({"tag": ""}, "tag="),
            ({"tag": "a{b"}, "without braces"),
            ({"ttl": 0}, "ttl=0 is wrong: give more than 0"),
            ({"jitter": 2}, "jitter=2 is wrong: give 0 or more, at most 1"),
            ({"stale": -1}, "stale=-1"),
            ({"early": float("nan")}, "early=nan"),
            ({"maxsize": "many"}, "maxsize='many'"),
            ({"ttl": True}, "ttl=True"),
        ],
    )
    def test_bad_options(self, options: dict[str, Any], part: str) -> None:
        """A wrong option is named."""
        with pytest.raises(ConfigError) as caught:
            ShareCache(**{"tag": "t", **options})

        assert part in str(caught.value)

    def test_plain_functions(self) -> None:
        """A plain function is sent to CacheWrap."""
        with pytest.raises(UsageError, match="see CacheWrap"):
            ShareCache("t")(len)  # type: ignore[arg-type]

    def test_repr(self) -> None:
        """The representation shows where results are kept."""
        assert repr(ShareCache("t", ttl=5)) == "<ShareCache 't' in this process, ttl 5 s>"
        pool = RedisPool(url="redis://127.0.0.1:1")
        assert repr(ShareCache("t", redis=pool)) == "<ShareCache 't' in Redis, ttl 60 s>"

    async def test_maxsize(self) -> None:
        """Without Redis the least recently used results go first."""
        runs = Runs()

        @ShareCache("o1", maxsize=2)
        async def f(n: int) -> Any:
            return await runs.run(n)

        for n in (1, 2, 1, 3, 1):
            await f(n)

        assert runs.count == 3
        await f(2)
        assert runs.count == 4


class Elsewhere(Enum):
    """An enumeration of another module with the same name as one here."""

    RED = 2


Elsewhere.__qualname__, Elsewhere.__module__ = Colour.__qualname__, "elsewhere"


class TestLookalikes:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"a": 1}, ("{}", ("'a'", "1"))),
            ({1}, ("{,}", "1")),
            (Colour.RED, Elsewhere.RED),
            (Colour.RED, (f"{Colour.__module__}.Colour", "RED")),
            (Decimal(1), ("Decimal('1')",)),
            (Decimal(1), ("=", "Decimal('1')")),
            ([("()", 1)], [[1]]),
        ],
    )
    def test_values_that_are_written_alike(self, one: object, other: object) -> None:
        """What stands for a value in a key cannot be given as a value of another kind."""
        make = KeyMaker(lambda value: value)
        assert make((one,), {}) != make((other,), {})

    async def test_functions_of_one_name(self) -> None:
        """A factory's functions share no results, though they share a cache."""
        cache = ShareCache("factory")

        def made(region: str) -> Any:
            @cache
            async def sync(n: int) -> tuple[str, int]:
                return region, n

            return sync

        eu, us = made("eu"), made("us")
        assert [await eu(1), await us(1), await eu(1)] == [("eu", 1), ("us", 1), ("eu", 1)]
        await eu.invalidate(1)
        assert await us(1) == ("us", 1)

    def test_functions_of_one_name_in_redis(self) -> None:
        """Other processes cannot distinguish them: the second one is refused, unless `key=` does it."""
        client = Redis()

        def made(cache: ShareCache, region: str) -> Any:
            @cache
            async def sync(n: int) -> tuple[str, int]:
                return region, n

            return sync

        cache = ShareCache("factory", redis=client)
        first = made(cache, "eu")

        with pytest.raises(UsageError, match="has another function"):
            made(cache, "us")

        assert first is not None
        keyed = ShareCache("factory", redis=client, key=str)
        assert [made(keyed, "eu"), made(keyed, "us")]

    def test_a_function_that_is_defined_again(self) -> None:
        """In a notebook a cell is run again: a function that closes over nothing takes the name over."""
        cache = ShareCache("again", redis=Redis())
        scope: dict[str, Any] = {"cache": cache, "__name__": "notebook"}
        kept = []

        for _ in range(2):
            exec("@cache\nasync def f(): pass", scope)
            kept.append(scope["f"])

    @pytest.mark.parametrize("key", [print, len, list, bytes])
    async def test_a_key_that_is_not_text(self, key: Any) -> None:
        """1, True and 1.0 would be one key, and None none: only text is taken."""

        @ShareCache("k", key=key)
        async def f(n: list[int]) -> list[int]:
            return n

        @CacheWrap(key=key)
        def g(n: list[int]) -> list[int]:
            return n

        with pytest.raises(UsageError, match="must return text"):
            await f([1])

        with pytest.raises(UsageError, match="must return text"):
            g([1])

    def test_coroutine_functions_as_options(self) -> None:
        """Nobody awaits their answer, and it would be taken for true."""

        async def never(_: object) -> bool:
            return False

        options: list[dict[str, Any]] = [{"key": never}, {"condition": never}]

        for option in options:
            with pytest.raises(ConfigError, match=r"(key|condition)=.*plain function"):
                ShareCache("c", **option)

    def test_generators(self) -> None:
        """Their result can be read once, so that a second caller would get nothing."""

        def numbers() -> Any:
            yield 1

        async def later() -> Any:
            yield 1

        for function in (numbers, later):
            with pytest.raises(UsageError, match="generator function"):
                CacheWrap()(function)
