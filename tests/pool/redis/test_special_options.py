"""redis-py's options NEVER_DECODE and EMPTY_RESPONSE."""

from __future__ import annotations

import pytest
from redis import exceptions as driver
from redis.client import EMPTY_RESPONSE, NEVER_DECODE

from ws_pool.redis import RedisPool


class TestSpecialOptions:
    """They do what they do in redis-py."""

    async def test_special_options(self, redis_url: str) -> None:
        """NEVER_DECODE and EMPTY_RESPONSE do what redis-py's clients do, alone and in pipelines."""
        async with RedisPool(url=redis_url, decode_responses=True) as pool:
            redis = pool.redis
            await redis.set("k", b"\xff")
            assert await redis.execute_command("GET", "k", **{NEVER_DECODE: []}) == b"\xff"
            assert await redis.execute_command("NOSUCH", **{EMPTY_RESPONSE: "empty"}) == "empty"
            assert await redis.execute_command("ECHO", "x", **{EMPTY_RESPONSE: "empty"}) == "x"

            with pytest.raises(driver.ResponseError):
                await redis.execute_command("NOSUCH", **{NEVER_DECODE: []})

            async with redis.pipeline(transaction=False) as pipe:
                pipe.execute_command("GET", "k", **{NEVER_DECODE: []})
                pipe.execute_command("NOSUCH", **{EMPTY_RESPONSE: "empty"})
                assert await pipe.execute() == [b"\xff", "empty"]

            async with redis.pipeline(transaction=False) as pipe:
                pipe.execute_command("NOSUCH", **{EMPTY_RESPONSE: "empty"})
                pipe.echo("x")
                assert await pipe.execute() == ["empty", "x"]

            async with redis.pipeline(transaction=True) as pipe:
                pipe.echo("x")
                pipe.execute_command("NOSUCH", **{EMPTY_RESPONSE: "empty"})
                assert await pipe.execute() == ["x", "empty"]

    async def test_special_options_of_blocking_commands(self, redis_url: str) -> None:
        """They count on a dedicated connection as well, of a client or for one command."""
        async with (
            RedisPool(url=redis_url, decode_responses=True) as pool,
            pool.get_client(alone=True) as alone,
        ):
            for redis in (pool.redis, alone):
                await redis.rpush("list", b"\xff", b"\xfe")
                pop = ("BLPOP", "list", 1)
                assert list(await redis.execute_command(*pop, **{NEVER_DECODE: []})) == [b"list", b"\xff"]

                with pytest.raises(UnicodeDecodeError):
                    await redis.execute_command(*pop)

                await redis.set("text", "t")
                pop = ("BLPOP", "text", 1)
                assert await redis.execute_command(*pop, **{EMPTY_RESPONSE: "empty"}) == "empty"
                await redis.delete("text")

                with pytest.raises(driver.ResponseError):
                    await redis.execute_command("BLPOP", "list", -1)
