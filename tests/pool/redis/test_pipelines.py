"""Pipelines and transactions."""

from __future__ import annotations

import pytest
from redis import exceptions as driver
from redis.exceptions import ExecAbortError, ResponseError

from tools.servers import RedisServer
from ws_core.testing import FaultProxy
from ws_pool.errors import (
    MaybeExecuted,
)
from ws_pool.redis import RedisPool


class TestTransactions:
    """MULTI and EXEC of a pipeline that shares the connection."""

    async def test_a_command_that_the_server_does_not_take(self, redis_url: str) -> None:
        """A wrong command among others undoes them all, and its own error is raised."""
        async with RedisPool(url=redis_url) as pool, pool.redis.pipeline() as pipe:
            pipe.set("k", 1)
            pipe.execute_command("SET", "only-a-key")

            with pytest.raises((ExecAbortError, ResponseError), match="wrong number of arguments"):
                await pipe.execute()

            assert await pool.redis.get("k") is None


class TestReplies:
    """Replies of pipelines, and what a lost connection does to them."""

    async def test_empty_and_async_pipelines(self, redis_url: str) -> None:
        """An empty pipeline sends nothing; callbacks may be async there too, and may fail."""

        async def shout(response: bytes, **_: object) -> str:
            return response.decode().upper()

        def fail(response: bytes, **_: object) -> None:
            raise driver.ResponseError("a callback's own")

        async with RedisPool(url=redis_url) as pool:
            redis = pool.redis

            async with redis.pipeline() as pipe:
                assert await pipe.execute() == []

            redis.set_response_callback("ECHO", shout)

            for transaction in (True, False):
                async with redis.pipeline(transaction=transaction) as pipe:
                    pipe.echo("x")
                    assert await pipe.execute() == ["X"]

            redis.response_callbacks.update({"ECHO": fail})

            async with redis.pipeline(transaction=False) as pipe:
                pipe.echo("x")
                (error,) = await pipe.execute(raise_on_error=False)
                assert isinstance(error, driver.ResponseError)

    async def test_a_long_pipeline_on_a_lost_connection(self, redis_server: RedisServer) -> None:
        """A pipeline on a dedicated connection fails in the same way."""
        async with (
            FaultProxy(redis_server.host, redis_server.port) as proxy,
            RedisPool(url=proxy.url(redis_server.url)) as pool,
            pool.redis.pipeline(transaction=False) as pipe,
        ):
            for _ in range(2_001):
                pipe.incr("n")

            proxy.drop_reply(100, match="INCRBY")

            with pytest.raises(MaybeExecuted, match="INCRBY"):
                await pipe.execute()

    async def test_watch_on_a_lost_connection(self, redis_server: RedisServer) -> None:
        """A transaction with WATCH whose connection is lost may have been executed."""
        async with (
            FaultProxy(redis_server.host, redis_server.port) as proxy,
            RedisPool(url=proxy.url(redis_server.url)) as pool,
            pool.redis.pipeline() as pipe,
        ):
            await pipe.watch("k")
            pipe.multi()
            pipe.set("k", 1)
            proxy.drop_reply(match="EXEC")

            with pytest.raises((driver.WatchError, MaybeExecuted)):
                await pipe.execute()
