"""The program of a process that runs the demo's jobs; started by `command`, not by people."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from wintersweet._cli.application import running_pools
from wintersweet._cli.event_loop import new_runner, stop_event
from wintersweet.demo.chores import CLAIM_TTL, Chores
from wintersweet.demo.live import Board
from wintersweet.demo.shop import Shop
from ws_pool.redis import redis_pool_manager
from ws_tasks.taskiq import run_worker
from ws_web.server import run_worker_process

__all__ = ("main",)


def main(order: str) -> int:
    """Run jobs until a signal, or the demo's end, and return the exit code."""
    return run_worker_process(order, _work)


def _work(_: Mapping[str, Any], report_ready: Callable[[], None]) -> None:  # Any: of JSON types
    with new_runner() as runner:
        runner.run(_run_jobs(report_ready))


async def _run_jobs(report_ready: Callable[[], None]) -> None:
    stop = stop_event()

    async with running_pools():
        redis = redis_pool_manager.get_pool()
        board = Board(redis)
        engine = Chores(Shop(redis, worker=os.getpid()), board).engine(redis)

        async with board, run_worker(engine, drain_timeout=CLAIM_TTL):
            report_ready()
            await stop.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
