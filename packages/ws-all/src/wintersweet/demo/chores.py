"""What the shop does on its own: release unpaid orders, count, report, show a sign of life."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from wintersweet.demo.books import count
from wintersweet.demo.live import Board
from wintersweet.demo.shop import Shop
from ws_logging import logger
from ws_tasks import CrontabTask, IntervalTask

__all__ = ("Chores",)


class Chores:
    """
    The tasks of one worker.

    Every worker runs them all; what must not happen twice is safe by itself, because the shop
    releases an order only from the state in which it found it.

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
    async def running(self) -> AsyncIterator[None]:
        """Run the tasks for the length of a block."""
        tasks = (
            IntervalTask(1.0, self.release, tag="release unpaid orders"),
            IntervalTask(1.0, self.show, tag="show figures"),
            CrontabTask("* * * * *", self.report, tag="report"),
        )

        for task in tasks:
            task.start()

        try:
            yield
        finally:
            for task in tasks:
                await task.stop()

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
