"""ws-tasks' schedulers with the claims of ws-redislock as their guard."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

from tests.servers import StartServer
from tools.servers import RedisServer
from ws_pool.redis import RedisPool
from ws_redislock import RunClaims
from ws_tasks import OnceTask, Scheduler
from ws_tasks.interface import Guard


async def test_each_nominal_run_is_made_once(any_redis_url: str) -> None:
    """Of four schedulers with the same twenty tasks, each nominal run is made by exactly one."""
    made: Counter[int] = Counter()
    due = datetime.now(UTC) + timedelta(seconds=0.2)

    async def work(number: int) -> None:
        made[number] += 1

    async with AsyncExitStack() as stack:
        tasks: list[OnceTask] = []

        for _ in range(4):
            pool = await stack.enter_async_context(RedisPool(url=any_redis_url))
            claims: Guard = await stack.enter_async_context(RunClaims(pool))
            scheduler = await stack.enter_async_context(Scheduler())

            for number in range(20):
                task = OnceTask(due, work, number, name=f"work-{number}", guard=claims)
                tasks.append(scheduler.add(task))

        async with asyncio.timeout(30):
            while any(_open(task) for task in tasks):
                await asyncio.sleep(0.02)

    assert made == dict.fromkeys(range(20), 1)
    assert sum(task.statistics().claimed_elsewhere for task in tasks) == 60


async def test_without_redis_no_run_is_made_twice(start_server: StartServer) -> None:
    """When Redis does not answer, the run is not made, and the task says why."""
    server = start_server(RedisServer)
    made = 0

    async def work() -> None:
        nonlocal made
        made += 1

    async with RunClaims(server.url, timeout=0.5) as claims, Scheduler() as scheduler:
        server.kill()
        task = scheduler.add(OnceTask(datetime.now(UTC), work, name="work", guard=claims))

        async with asyncio.timeout(30):
            while not task.statistics().last_error:
                await asyncio.sleep(0.02)

        assert "guard" in str(task.statistics().last_error)

    assert made == 0


def _open(task: OnceTask) -> bool:
    """Return whether the task's one run is still to come."""
    statistics = task.statistics()
    return statistics.succeeded + statistics.claimed_elsewhere == 0
