"""The program of a process that runs the demo's jobs; started by `command`, not by people."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from wintersweet.demo.chores import CLAIM_TTL, Chores
from wintersweet.demo.live import Board
from wintersweet.demo.shop import Shop
from ws_pool.redis import redis_pool_manager
from ws_tasks.taskiq import run_worker
from ws_web import Settings, create_app
from ws_web.server import run_worker_process

__all__ = ("main",)


def main(order: str) -> int:
    """Run jobs until a signal, or the demo's end, and return the exit code."""
    return run_worker_process(order, _work)


def _work(_: Mapping[str, Any], report_ready: Callable[[], None]) -> None:  # Any: of JSON types
    # Given a factory, the runner leaves the thread's current loop alone, which may be somebody else's.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(_run_jobs(report_ready))


async def _run_jobs(report_ready: Callable[[], None]) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    # The application has no routes: its lifespan starts the pools and the log of the settings.
    app = create_app(Settings())

    async with app.router.lifespan_context(app):
        redis = redis_pool_manager.get_pool()
        board = Board(redis)
        engine = Chores(Shop(redis, worker=os.getpid()), board).engine(redis)

        async with board, run_worker(engine, drain_timeout=CLAIM_TTL):
            report_ready()
            await stop.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
