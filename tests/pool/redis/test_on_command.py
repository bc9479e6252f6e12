"""The hook `on_command` is called once for each command and pipeline, with its name, time and error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import ResponseError

from ws_pool.errors import ConfigError
from ws_pool.redis import RedisPool


class Calls:
    """A hook that keeps what it gets."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str | None]] = []

    def __call__(self, name: str, seconds: float, error: BaseException | None) -> None:
        """Keep a call."""
        assert seconds >= 0
        self.calls.append((name, None if error is None else type(error).__name__))

    def take(self) -> list[tuple[str, str | None]]:
        """Return what was kept since the last time."""
        taken, self.calls = self.calls, []
        return taken


@pytest.mark.parametrize("options", [{}, {"cache": 10}, {"prefix": "p:"}], ids=["plain", "cache", "prefix"])
async def test_each_command_once(any_redis_url: str, options: dict[str, Any]) -> None:
    """Commands on shared and dedicated connections, pipelines and failures are reported, once each."""
    calls = Calls()

    async with RedisPool(any_redis_url, on_command=calls, **options) as pool:
        await pool.redis.set("k", 1)
        assert await pool.redis.get("k") == b"1"
        await pool.redis.config_get("maxmemory")
        assert await pool.redis.blpop(["nothing"], timeout=0.01) is None

        with pytest.raises(ResponseError):
            await pool.redis.lpush("k", 1)

        assert calls.take() == [
            *(("SET", None), ("GET", None), ("CONFIG GET", None), ("BLPOP", None)),
            ("LPUSH", "ResponseError"),
        ]

        async with pool.redis.pipeline() as pipe:
            pipe.incr("k")
            pipe.incr("k")
            assert await pipe.execute() == [2, 3]

        async with pool.get_client(alone=True) as client:
            assert await client.get("k") == b"3"

        assert calls.take() == [("PIPELINE", None), ("GET", None)]
        waiting = asyncio.ensure_future(pool.redis.blpop(["nothing"], timeout=0))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert calls.take() == [("BLPOP", "CancelledError")]
        await pool.redis.with_retry("at_least_once").get("k")
        assert calls.take() == [("GET", None)]


async def test_a_cluster(cluster_url: str) -> None:
    """What is split over nodes is one command."""
    calls = Calls()

    async with RedisPool(cluster_url, cluster=True, on_command=calls) as pool:
        await pool.redis.mset({f"k{number}": 1 for number in range(10)})
        await pool.redis.get("k1")
        await pool.redis.delete(*(f"k{number}" for number in range(10)))
        assert calls.take() == [("MSET", None), ("GET", None), ("DEL", None)]


async def test_a_hook_that_fails(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """An error of the hook is logged, and does not become the command's."""

    def fail(*_: object) -> None:
        raise ValueError("of the hook")

    async with RedisPool(redis_url, on_command=fail) as pool:
        assert await pool.redis.ping()

    assert "on_command has failed over PING" in caplog.text


@pytest.mark.parametrize("hook", ["print", pytest.param(asyncio.sleep, id="async")])
def test_what_is_no_hook(hook: Callable[..., object]) -> None:
    """A name, or a coroutine function that nobody would await, is refused."""
    with pytest.raises(ConfigError, match="on_command"):
        RedisPool(on_command=hook)
