"""The layers of 1.x over the libraries: what the recorded code of its users does not reach."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from wintersweet._eager import begin
from wintersweet.asyncs.ntp.ntp_server import _number
from wintersweet.asyncs.pool.mysql import ResultProxy
from wintersweet.asyncs.pool.redis import Redis
from wintersweet.utils.cache import LRUCache
from ws_core.errors import ConfigError, UsageError
from ws_logging import logger


class TestBegin:
    """Work that begins at once."""

    async def test_a_failure_that_nobody_awaits(self) -> None:
        """It is logged, with what was begun."""
        lines: list[str] = []
        number = logger.add(lambda message: lines.append(str(message)), format="{message}")

        async def fail() -> None:
            raise ValueError("no")

        try:
            task = begin(fail(), "closing pool 'default'")
            await asyncio.wait([task])
            await asyncio.sleep(0)
        finally:
            logger.remove(number)

        assert lines == ["closing pool 'default' failed: ValueError: no\n"]

    def test_without_a_loop(self) -> None:
        """There is nothing to begin it in, and the error says so."""

        async def work() -> None:
            pass

        with pytest.raises(UsageError, match="closing needs a running event loop"):
            begin(work(), "closing")


def test_services_and_their_ports() -> None:
    """A port may be a number or the name of a service; ntp is known everywhere."""
    assert (_number(9123), _number("ntp")) == (9123, 123)

    with pytest.raises(ConfigError, match="port='nonsense' is not the name of a service"):
        _number("nonsense")


class TestResults:
    """What `execute` returns."""

    @pytest.fixture
    def result(self) -> ResultProxy:
        """Three rows."""

        class Found:
            rows = ((1, "a"), (2, "b"), (3, "c"))
            rowcount, last_id = 3, 0

        return ResultProxy(Found())

    async def test_rows_are_read_once(self, result: ResultProxy) -> None:
        """`fetchmany` goes on where it was and loses no row; a closed result has none."""
        assert result.returns_rows
        assert await result.fetchmany(2) == [(1, "a"), (2, "b")]
        assert await result.fetchone() == (3, "c")
        assert await result.fetchmany(2) == []

    async def test_a_closed_result(self, result: ResultProxy) -> None:
        """It has no rows left."""
        await result.close()
        assert (result.closed, await result.fetchall()) == (True, [])

    async def test_scalar(self, result: ResultProxy) -> None:
        """The first value of the first row, of a tuple or a dict; None without rows."""
        assert await result.scalar() == 1
        result.rows = [{"n": 5}]
        assert await result.scalar() == 5
        result.rows = []
        assert await result.scalar() is None

    async def test_fetchmany_loses_no_row(self, result: ResultProxy) -> None:
        """What follows it is the next row."""
        assert await result.fetchmany(1) == [(1, "a")]
        assert await result.fetchone() == (2, "b")


class TestRedis:
    """Calls in the way of aioredis 1, and in that of redis-py."""

    async def test_both_ways(self, redis_url: str) -> None:
        """Each is taken."""
        from redis.asyncio import Redis as Driver

        async with Driver.from_url(redis_url, decode_responses=True) as driver:
            client: Any = Redis(driver)
            assert await client.set("k", 1, pexpire=50_000, exist=Redis.SET_IF_EXIST) is None
            assert await client.set("k", 1, pexpire=50_000)
            assert 0 < await client.pttl("k") <= 50_000
            assert await client.zadd("z", {"one": 1}) == 1
            assert await client.eval("return {KEYS[1], ARGV[1]}", 1, "k", "v") == ["k", "v"]
            assert not client.closed


class TestLru:
    """The bounded mapping."""

    def test_an_empty_one(self) -> None:
        """It has no top."""
        with pytest.raises(LookupError, match="empty"):
            LRUCache().top()

    def test_what_is_gone_is_forgotten(self) -> None:
        """The order of use keeps no more than some keys of entries that were evicted."""
        cache: LRUCache[int, int] = LRUCache(2)

        for number in range(100):
            cache.put(number, number)

        assert cache.list() == [(99, 99), (98, 98)]
        assert len(cache._used) <= 15
        assert cache.get(0, "none") == "none"
