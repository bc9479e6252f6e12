"""Keys made of arguments, and options that are refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

from tests.pool.cache._support import Runs
from ws_pool._cache.keys import KeyMaker, shorten
from ws_pool.cache import ShareCache
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
