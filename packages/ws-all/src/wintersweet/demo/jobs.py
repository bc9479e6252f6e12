"""The sale's jobs as the demo's own process sees them: their queue, and whether any was lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from wintersweet.demo.books import paid_orders, receipt_writers
from wintersweet.demo.chores import NAME
from wintersweet.demo.load import BUYERS
from ws_core.errors import WsError
from ws_pool.redis import RedisPool
from ws_tasks.taskiq import RedisStreamsBroker
from ws_web.server import Supervisor

__all__ = ("JobSummary", "clear_queue", "next_receipt", "sum_up_jobs")

_STALLED: Final = 120.0  # seconds without a receipt after which those that are missing are lost
_LOOK: Final = 0.05


@dataclass(frozen=True, slots=True)
class JobSummary:
    """
    What the workers of jobs did, counted from the database.

    Each payment that is confirmed to a buyer has enqueued a job that writes a receipt. ``done`` counts
    receipts, ``by_worker`` the same by process; ``lost`` counts paid orders without one when nothing is
    queued any more, ``dead`` jobs that were given up.
    """

    done: int
    lost: int
    dead: int
    by_worker: dict[int, int]
    workers_replaced: int

    @property
    def is_right(self) -> bool:
        """Whether no job was lost or given up."""
        return not (self.lost or self.dead)


async def clear_queue(options: Mapping[str, Any]) -> None:
    """
    Drop what a former sale has left in the queue: its orders are gone, and their numbers come again.

    The options are those of a pool on the Redis of the workers, here and below.
    """
    async with RedisPool(**options) as pool:
        async for key in pool.redis.scan_iter(match=f"wst:{{{NAME}}}:*"):
            await pool.redis.unlink(key)


async def next_receipt() -> None:
    """Return when a job has written one more receipt."""
    before: int | None = None

    while True:
        with suppress(WsError):  # a connection that a fault has ended before
            found = len(await receipt_writers())
            before = found if before is None else before

            if found > before:
                return

        await asyncio.sleep(_LOOK)


async def sum_up_jobs(options: Mapping[str, Any], supervisor: Supervisor) -> JobSummary:
    """Wait until the queue of a supervisor's workers is empty, and count."""
    async with RedisPool(**options) as pool:
        broker = RedisStreamsBroker(pool, queue=NAME)
        paid = await paid_orders(BUYERS)
        best, since = -1, time.monotonic()

        while True:
            depth = await broker.depth()  # first: what is not queued now has written its receipt
            dead = depth.pop("dead")
            writers = {order: worker for order, worker in (await receipt_writers()).items() if order in paid}

            if len(writers) > best:
                best, since = len(writers), time.monotonic()

            if len(writers) == len(paid) or not any(depth.values()) or time.monotonic() - since > _STALLED:
                break

            await asyncio.sleep(_LOOK)

        await broker.shutdown()

    return JobSummary(
        done=len(writers),
        lost=len(paid) - len(writers),
        dead=dead,
        by_worker=dict(sorted(Counter(writers.values()).items())),
        workers_replaced=supervisor.replaced,
    )
