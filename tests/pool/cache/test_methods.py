"""Methods with a cache: their object is part of the key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.pool.cache._support import Runs
from ws_pool._cache.keys import Identities
from ws_pool.cache import CacheWrap, ShareCache
from ws_pool.errors import UsageError


class TestInThisProcess:
    async def test_each_object_has_results_of_its_own(self) -> None:
        """Two objects of a class share nothing, and each finds its own again."""
        runs = Runs()

        class Shop:
            def __init__(self, name: str) -> None:
                self.name = name

            @ShareCache("m1")
            async def item(self, number: int) -> Any:
                return self.name, number, (await runs.run())["n"]

        a, b = Shop("a"), Shop("b")
        assert await a.item(1) == await a.item(number=1) == ("a", 1, 1)
        assert await b.item(1) == await b.item(1) == ("b", 1, 2)
        await Shop.item.invalidate(a, 1)
        assert await a.item(1) == ("a", 1, 3)
        assert await b.item(1) == ("b", 1, 2)

    async def test_objects_with_a_value_share(self) -> None:
        """Equal dataclasses, and objects with an equal cache key, are the same to the cache."""
        runs = Runs()

        @dataclass
        class Tenant:
            name: str

            @ShareCache("m2")
            async def item(self) -> Any:
                return await runs.run()

        class Keyed:
            def __init__(self, key: str) -> None:
                self.key = key

            def __cache_key__(self) -> str:
                return self.key

            @ShareCache("m3")
            async def item(self) -> Any:
                return await runs.run()

        assert await Tenant("a").item() == await Tenant("a").item()
        assert await Tenant("a").item() != await Tenant("b").item()
        assert await Keyed("a").item() == await Keyed("a").item()
        assert await Keyed("a").item() != await Keyed("b").item()

    async def test_class_methods_and_wraps(self) -> None:
        """A class is a value, and CacheWrap treats methods alike."""

        class Shop:
            def __init__(self) -> None:
                self.runs = 0

            @classmethod
            @ShareCache("m4")
            async def named(cls) -> str:
                return cls.__name__

            @CacheWrap()
            def count(self) -> int:
                self.runs += 1
                return self.runs

        class Other(Shop):
            pass

        assert (await Shop.named(), await Other.named()) == ("Shop", "Other")  # type: ignore[call-arg]  # mypy does not bind through classmethod
        one, two = Shop(), Shop()
        assert (one.count(), one.count(), two.count()) == (1, 1, 1)
        assert two.runs == 1

    def test_numbers_are_not_used_again(self) -> None:
        """An object that has gone does not leave its number to one at the same address."""
        identities = Identities()

        class Thing:
            pass

        seen = {identities.number(Thing()) for _ in range(100)}
        assert len(seen) == 100
        assert not identities._known


class TestShared:
    async def test_a_class_without_state(self, redis_url: str) -> None:
        """Its objects are all the same."""
        runs = Runs()

        async with Redis.from_url(redis_url) as client:

            class Shop:
                @ShareCache("m5", redis=client, redis_timeout=30)
                async def item(self) -> Any:
                    return await runs.run()

            assert await Shop().item() == await Shop().item()

    async def test_an_object_that_another_process_cannot_know(self, redis_url: str) -> None:
        """It is refused, with what to do, before anything runs: its results must not be another's."""
        async with Redis.from_url(redis_url) as client:

            class Shop:
                def __init__(self, tenant: str) -> None:
                    self.tenant = tenant

                @ShareCache("m6", redis=client, redis_timeout=30)
                async def item(self) -> str:
                    return self.tenant

            with pytest.raises(UsageError, match=r"give .*Shop a method __cache_key__"):
                await Shop("a").item()


async def test_state_that_is_not_an_attribute() -> None:
    """An object that is a dict, or has slots, is not like every other of its class."""

    class Shop(dict[str, int]):
        @ShareCache("m20")
        async def content(self) -> dict[str, int]:
            return dict(self)

    class Slots:
        __slots__ = ("name",)

        def __init__(self, name: str) -> None:
            self.name = name

        @ShareCache("m21")
        async def item(self) -> str:
            return self.name

    one, other = Shop(a=1), Shop(b=1)
    assert [await one.content(), await other.content()] == [{"a": 1}, {"b": 1}]

    with pytest.raises(UsageError, match="__cache_key__"):
        await Slots("a").item()
