"""What the shop does on its own: release unpaid orders, count, report, show a sign of life."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from wintersweet.demo.books import count
from wintersweet.demo.live import Board
from wintersweet.demo.shop import Shop
from ws_logging import logger
from ws_pool.redis import RedisPool
from ws_redislock import RunClaims
from ws_tasks import CrontabTask, IntervalTask, Scheduler, TaskOptions, task

__all__ = ("Chores",)

_NAME = "wintersweet-demo"
_RELEASE, _REPORT = "release unpaid orders", "report"
_CLAIM_TTL = 5.0  # seconds after which another worker does what a dead one has left


class Chores:
    """
    The tasks of one worker.

    Every worker shows its own figures; of the others one worker makes each run, and another one when
    it dies. They are tasks of a scheduler, or jobs on a Redis stream that any worker takes.

    Args:
        shop: The shop.
        board: Where news are published.
        sales: Returns how many pieces this worker has sold.
    """

    def __init__(self, shop: Shop, board: Board, sales: Callable[[], int]) -> None:
        self._shop = shop
        self._board = board
        self._sales = sales

    @asynccontextmanager
    async def running(self, redis: RedisPool, engine: str = "local") -> AsyncIterator[None]:
        """Run the tasks for the length of a block, with the ``engine`` local or taskiq."""
        async with AsyncExitStack() as stack:
            claims = await stack.enter_async_context(RunClaims(redis, namespace=_NAME))
            scheduler = await stack.enter_async_context(Scheduler())
            scheduler.add(IntervalTask(1.0, self.show, name="show figures"))

            if engine == "taskiq":
                await self._enter_jobs(stack, redis, claims)
            else:
                release: TaskOptions = {"name": _RELEASE, "guard": claims, "claim_ttl": _CLAIM_TTL}
                report: TaskOptions = {"name": _REPORT, "guard": claims, "claim_ttl": _CLAIM_TTL}
                scheduler.add(IntervalTask(1.0, self.release, **release))
                scheduler.add(CrontabTask("* * * * *", self.report, **report))

            yield

    async def _enter_jobs(self, stack: AsyncExitStack, redis: RedisPool, claims: RunClaims) -> None:
        from ws_tasks.taskiq import RedisStreamsBroker, TaskiqEngine, run_worker  # noqa: PLC0415 - only here

        jobs = [
            task(_RELEASE, schedule=1.0, timeout=30)(self.release),
            task(_REPORT, schedule="* * * * *", timeout=30)(self.report),
        ]
        broker = RedisStreamsBroker(redis, queue=_NAME, lease=_CLAIM_TTL, concurrency=4)
        engine = TaskiqEngine(jobs, broker=broker, guard=claims)
        await stack.enter_async_context(engine)
        await stack.enter_async_context(run_worker(engine, drain_timeout=_CLAIM_TTL))

    async def release(self) -> None:
        """Put the pieces of unpaid orders back on sale."""
        for released in await self._shop.release_unpaid():
            if released.orders:
                logger.info("released {} unpaid orders of item {}", len(released.orders), released.item)
                self._board.tell("released", item=released.item, orders=released.orders)

    async def show(self) -> None:
        """Tell the pages that this worker lives, and what the database counts."""
        totals = await count()
        self._board.tell("worker", pid=os.getpid(), sales=self._sales())
        self._board.tell(
            "totals",
            available=list(totals.available.items()),
            reserved=totals.reserved,
            oversold=totals.oversold,
        )

    async def report(self) -> None:
        """Write the sale's state into the log each minute."""
        totals = await count()
        text = f"{totals.sold} of {totals.stock} sold, {totals.reserved} waiting for payment"
        logger.bind(sold=totals.sold, stock=totals.stock, oversold=totals.oversold).info("report: {}", text)
        self._board.tell("report", text=text)
