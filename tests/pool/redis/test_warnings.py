"""What a pool says about its use, before it costs anything."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tools.servers import RedisServer
from ws_core.testing import FaultProxy
from ws_pool._redis.connection.queue import QueuePressure
from ws_pool.errors import UsageError
from ws_pool.redis import RedisPool


async def test_a_queue_that_fills_up_is_reported_in_time(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """With two thirds of the queue taken one warning names the pool and the figures."""
    async with FaultProxy(redis_server.host, redis_server.port) as proxy:
        url = f"redis://{proxy.host}:{proxy.port}"

        async with RedisPool(url=url, name="busy", max_pending=1, max_queue=9) as pool:
            proxy.black_hole()
            calls = [asyncio.ensure_future(pool.redis.ping()) for _ in range(6)]
            await asyncio.sleep(0)
            assert "is nearly exhausted" not in caplog.text
            calls += [asyncio.ensure_future(pool.redis.ping()) for _ in range(3)]
            await asyncio.sleep(0)
            assert caplog.text.count("is nearly exhausted") == 1
            assert "'busy' is nearly exhausted: 6 of 9" in caplog.text
            proxy.heal()

            for call in calls:
                call.cancel()

            await asyncio.gather(*calls, return_exceptions=True)


def test_it_is_not_repeated_too_often() -> None:
    """The next warning comes a minute later at the earliest; a queue of one warns when it is taken."""
    low = QueuePressure(1)
    assert [low.due(queued, now=now) for queued, now in ((0, 0), (1, 0), (1, 59), (1, 60))] == [
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("cluster", [False, True], ids=["one", "cluster"])
async def test_a_wrong_rule_for_retries_is_refused(
    redis_url: str, cluster_url: str, *, cluster: bool
) -> None:
    """A typing error in the rule is refused, wherever it is given; nothing is sent."""
    wrong: Any = "at-least-once"

    async with RedisPool(url=cluster_url if cluster else redis_url, cluster=cluster) as pool:
        with pytest.raises(UsageError, match="'at_least_once', not 'at-least-once'"):
            pool.redis.with_retry(wrong)

        for command in (("INCR", "k"), ("BLPOP", "q", 0.01)):
            with pytest.raises(UsageError, match="at_least_once"):
                await pool.redis.execute_command(*command, retry=wrong)

        assert not await pool.redis.exists("k")
