"""What the demo says of its jobs: receipts are counted, and one that nobody wrote is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import insert

from wintersweet.demo import books
from wintersweet.demo.chores import NAME, Chores
from wintersweet.demo.jobs import clear_queue, next_receipt, sum_up_jobs
from wintersweet.demo.live import Board
from wintersweet.demo.load import BUYERS
from wintersweet.demo.shop import Shop
from wintersweet.demo.tables import PAID, orders
from ws_core.errors import UnavailableError
from ws_pool import sql_pool_manager
from ws_pool.redis import RedisPool
from ws_tasks.taskiq import run_worker
from ws_web.server import Supervisor, WorkerCommand


@pytest.fixture
async def redis(redis_url: str, tmp_path: Path) -> AsyncIterator[RedisPool]:
    """Yield the pool of the queue, beside a sale with three paid orders."""
    sql_pool_manager.register({"default": {"url": f"sqlite:///{tmp_path / 'shop.db'}"}})

    async with RedisPool(url=redis_url) as pool, sql_pool_manager:
        await books.open_sale(8)

        for number in range(1, 4):
            order = {"id": number, "item_id": 1, "buyer": f"{BUYERS}{number}", "state": PAID}
            await sql_pool_manager.insert(
                insert(orders).values(**order, idempotency_key=f"key-{number}", pay_until=0.0, worker=1)
            )

        yield pool


@pytest.fixture
def chores(redis: RedisPool) -> Chores:
    """Return chores whose news nobody receives."""
    return Chores(Shop(redis), Board(redis))


@pytest.fixture
def supervisor() -> Supervisor:
    """Return one that has not started its worker."""
    return Supervisor(WorkerCommand("", {}), None, 1)


async def test_a_missing_receipt_is_lost(redis_url: str, redis: RedisPool, supervisor: Supervisor) -> None:
    """Control: an order whose job is nowhere is counted, once nothing is queued."""
    await books.write_receipt(1, worker=7)
    await books.write_receipt(1, worker=8)  # again, as a job that was run twice
    await books.write_receipt(3, worker=8)
    done = await sum_up_jobs({"url": redis_url}, supervisor)

    assert (done.done, done.lost, done.dead, done.by_worker) == (2, 1, 0, {7: 1, 8: 1})
    assert not done.is_right


async def test_what_is_queued_is_waited_for(
    redis_url: str, redis: RedisPool, chores: Chores, supervisor: Supervisor
) -> None:
    """Jobs that have not begun yet are not lost."""
    engine = chores.engine(redis)

    async with engine:
        for number in range(1, 4):
            await chores.confirm(number)

        counting = asyncio.create_task(sum_up_jobs({"url": redis_url}, supervisor))
        receipt = asyncio.create_task(next_receipt())

        async with run_worker(engine):
            done = await asyncio.wait_for(counting, 60)

        receipt.cancel()
        await asyncio.gather(receipt, return_exceptions=True)

    assert (done.done, done.lost, done.dead) == (3, 0, 0)
    assert done.is_right


async def test_without_workers(
    redis_url: str, redis: RedisPool, chores: Chores, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for ever for jobs that nobody runs."""
    monkeypatch.setattr("wintersweet.demo.jobs._STALLED", 0.3)

    async with chores.engine(redis):
        await chores.confirm(1)
        done = await asyncio.wait_for(sum_up_jobs({"url": redis_url}, supervisor), 60)

    assert (done.done, done.lost) == (0, 3)


async def test_the_next_receipt(redis: RedisPool) -> None:
    """Those that are there already are not the next one."""
    await books.write_receipt(1, worker=7)
    waiting = asyncio.create_task(next_receipt())
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done

    await books.write_receipt(2, worker=7)
    await asyncio.wait_for(waiting, 60)


async def test_a_former_sale(redis_url: str, redis: RedisPool, chores: Chores) -> None:
    """Its jobs are dropped, and nothing else."""
    await redis.redis.set("kept", "1")

    async with chores.engine(redis) as engine:
        await chores.confirm(1)
        await clear_queue({"url": redis_url})
        assert sum((await engine.broker.depth()).values()) == 0

    assert await redis.redis.keys(f"*{NAME}*") == []
    assert await redis.redis.get("kept") == b"1"


async def test_a_worker_that_never_serves() -> None:
    """A supervisor needs no socket for workers that serve nothing; the demo's says why one cannot start."""
    env = {"WS_REDIS_CONFIG__default__url": "redis://127.0.0.1:1/0"}
    supervisor = Supervisor(WorkerCommand("", {}, env, program="wintersweet.demo.worker"), None, 1)

    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        await supervisor.start()

    assert supervisor.pids == []
