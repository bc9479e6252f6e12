"""What the shop does on its own: release unpaid orders, write receipts, count and report."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from wintersweet.demo.books import count, write_receipt
from wintersweet.demo.live import Board
from wintersweet.demo.shop import Shop
from ws_logging import logger
from ws_pool.redis import RedisPool
from ws_redislock import RunClaims
from ws_tasks import CrontabTask, IntervalTask, Scheduler, TaskDefinition, TaskOptions, task

if TYPE_CHECKING:
    from ws_tasks.taskiq import TaskiqEngine

__all__ = ("CLAIM_TTL", "NAME", "Chores")

NAME = "wintersweet-demo"
"""The queue of the jobs, and the namespace of the claims."""
CLAIM_TTL = 5.0
"""Seconds after which another process does what a dead one has left."""

_RELEASE, _REPORT = "release unpaid orders", "report"
_RETRIES = 40  # some minutes, in which a database comes back


class Chores:
    """
    The tasks of one process.

    Every worker shows its own figures; of the others one process makes each run, and another one when
    it dies. They are tasks of a scheduler in the workers, or jobs on a Redis stream for processes that do
    nothing else. Receipts are jobs only: a queue in a worker's memory would die with the worker.
    """

    def __init__(self, shop: Shop, board: Board) -> None:
        self._shop = shop
        self._board = board
        self._receipt: TaskDefinition[[int], None] | None = None

    @asynccontextmanager
    async def running(
        self, redis: RedisPool, sales: Callable[[], int], *, as_jobs: bool = False
    ) -> AsyncIterator[None]:
        """
        Run the tasks of a worker that serves for the length of a block.

        ``sales`` returns how many pieces this worker has sold; ``as_jobs`` enqueues jobs instead of doing the
        work here.
        """
        async with AsyncExitStack() as stack:
            claims = await stack.enter_async_context(RunClaims(redis, namespace=NAME))
            scheduler = await stack.enter_async_context(Scheduler())

            async def show() -> None:
                await self.show(sales())

            scheduler.add(IntervalTask(1.0, show, name="show figures"))

            if as_jobs:
                await stack.enter_async_context(self.engine(redis, claims))
            else:
                release: TaskOptions = {"name": _RELEASE, "guard": claims, "claim_ttl": CLAIM_TTL}
                report: TaskOptions = {"name": _REPORT, "guard": claims, "claim_ttl": CLAIM_TTL}
                scheduler.add(IntervalTask(1.0, self.release, **release))
                scheduler.add(CrontabTask("* * * * *", self.report, **report))

            yield

    def engine(self, redis: RedisPool, claims: RunClaims | None = None) -> TaskiqEngine:
        """
        Return the engine of the jobs, for those who enqueue them and for those who run them.

        The claims decide which process enqueues a job when its schedule says so.
        """
        from ws_tasks.taskiq import RedisStreamsBroker, TaskiqEngine  # noqa: PLC0415 - only for jobs

        self._receipt = task("write receipt", timeout=30, retries=_RETRIES, unique=True)(self._write_receipt)
        jobs: list[TaskDefinition[Any, Any]] = [
            task(_RELEASE, schedule=1.0, timeout=30)(self.release),
            task(_REPORT, schedule="* * * * *", timeout=30)(self.report),
            self._receipt,
        ]
        broker = RedisStreamsBroker(redis, queue=NAME, lease=CLAIM_TTL, concurrency=4)
        return TaskiqEngine(jobs, broker=broker, guard=claims)

    async def confirm(self, order: int) -> None:
        """Have the receipt of a paid order written, where there are workers for that."""
        if self._receipt is not None:
            await self._receipt.enqueue(order)

    async def _write_receipt(self, order: int) -> None:
        await write_receipt(order, os.getpid())

    async def release(self) -> None:
        """Put the pieces of unpaid orders back on sale."""
        for released in await self._shop.release_unpaid():
            if released.orders:
                logger.info("released {} unpaid orders of item {}", len(released.orders), released.item)
                self._board.publish("released", item=released.item, orders=released.orders)

    async def show(self, sales: int) -> None:
        """Publish that this worker lives, how many pieces it has sold, and what the database counts."""
        totals = await count()
        self._board.publish("worker", pid=os.getpid(), sales=sales)
        self._board.publish(
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
        self._board.publish("report", text=text)
