"""Tasks and a worker process for test_taskiq; not a test module.

python _taskiq_worker.py URL QUEUE LOG OPTIONS    OPTIONS is JSON: concurrency, lease, deliveries, old
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from typing import Any

from ws_tasks import TaskDefinition, current_run, task
from ws_tasks.taskiq import RedisStreamsBroker, TaskiqEngine, run_worker

LEASE = 1.0


def say(*words: object) -> None:
    """Append a line to the log, whole, whatever else ends this process."""
    if path := os.environ.get("WORKER_LOG"):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(file, (" ".join(map(str, (os.getpid(), *words))) + "\n").encode())
        os.close(file)


@task("square")
async def square(number: int) -> int:
    """Do a little work."""
    say("begin", "square", number)
    await asyncio.sleep(0.002)
    say("end", "square", number)
    return number * number


@task("slow")
async def slow(number: int, seconds: float) -> int:
    """Take longer than the lease."""
    say("begin", "slow", number)
    await asyncio.sleep(seconds)
    say("end", "slow", number)
    return number


@task("plain")
def plain(seconds: float) -> str:
    """Work in a thread."""
    time.sleep(seconds)
    return current_run().name


@task("poison")
async def poison() -> None:
    """End the worker."""
    say("begin", "poison", 0)
    await asyncio.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)


@task("fails", retries=2)
async def fails() -> None:
    """Fail in each attempt."""
    raise ValueError(f"attempt {current_run().attempt}")


@task("leaves")
def leaves() -> None:
    """Call sys.exit()."""
    sys.exit(3)


@task("object")
async def strange() -> Any:
    """Return what is not JSON."""
    return object()


@task("too long", timeout=0.05)
async def too_long() -> None:
    """Take longer than its timeout."""
    await asyncio.sleep(60)


@task("new")
async def new() -> str:
    """Be unknown to old workers."""
    return "new"


@task("tick", schedule=0.5)
async def tick() -> None:
    """Be scheduled."""
    say("end", "tick", current_run().name)


ALL: tuple[TaskDefinition[Any, Any], ...] = (
    square,
    slow,
    plain,
    poison,
    fails,
    leaves,
    strange,
    too_long,
    new,
)


def engine_of(url: Any, queue: str, **options: Any) -> TaskiqEngine:
    """Return an engine on a queue."""
    tasks: list[TaskDefinition[Any, Any]] = [
        found for found in ALL if found is not new or not options.get("old")
    ]

    if options.get("tick"):
        tasks.append(tick)

    broker = RedisStreamsBroker(
        url,
        queue=queue,
        lease=options.get("lease", LEASE),
        concurrency=options.get("concurrency", 8),
        max_deliveries=options.get("deliveries", 3),
    )
    return TaskiqEngine(tasks, broker=broker, guard=options.get("guard"))


async def main(url: str, queue: str, log: str, options: str) -> None:
    """Work until SIGTERM comes."""
    os.environ["WORKER_LOG"] = log
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    async with run_worker(engine_of(url, queue, **json.loads(options)), drain_timeout=10):
        say("ready")
        await stop.wait()

    say("ended")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
