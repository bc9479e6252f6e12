"""One process of a job queue, for `bench_tasks`: a worker, or what enqueues. Knows ours and its peers.

    python _job_worker.py KIND work URL FILE      counts the jobs that are done in eight bytes of a file
    python _job_worker.py KIND enqueue URL        enqueues as many jobs as each line of stdin says

It runs in the environment of the peer, which need not have anything of ours.
"""

# ruff: noqa: PLC0415 - each environment has its own library only

from __future__ import annotations

import asyncio
import mmap
import sys
from collections.abc import Awaitable, Callable
from typing import Any

QUEUE = "bench"
AT_ONCE = 100
Enqueue = Callable[[], Awaitable[object]]

done = bytearray(8)


async def empty(*_: object) -> None:
    """Do nothing, and count."""
    done[:8] = (int.from_bytes(done[:8], "little") + 1).to_bytes(8, "little")


async def ours(mode: str, url: str) -> Enqueue | None:
    """ws-tasks on taskiq."""
    from ws_tasks import task
    from ws_tasks.taskiq import RedisStreamsBroker, TaskiqEngine, run_worker

    definition = task("empty")(empty)
    engine = TaskiqEngine([definition], broker=RedisStreamsBroker(url, queue=QUEUE, concurrency=AT_ONCE))

    if mode == "work":
        async with run_worker(engine):
            await asyncio.Event().wait()

    await engine.open(schedules=False)
    return definition.enqueue


async def taskiq(mode: str, url: str) -> Enqueue | None:
    """Taskiq with taskiq-redis, as they come."""
    from taskiq.api import run_receiver_task
    from taskiq_redis import RedisStreamBroker

    broker: Any = RedisStreamBroker(url, queue_name=QUEUE)
    job = broker.task(task_name="empty")(empty)

    if mode == "work":
        broker.is_worker_process = True
        await run_receiver_task(broker, run_startup=True)

    await broker.startup()
    found: Enqueue = job.kiq
    return found


async def arq(mode: str, url: str) -> Enqueue | None:
    """arq, with as many jobs at once as the others."""
    from arq import create_pool
    from arq.connections import RedisSettings
    from arq.worker import Worker

    settings = RedisSettings.from_dsn(url)

    if mode == "work":
        worker = Worker([empty], redis_settings=settings, queue_name=QUEUE, max_jobs=AT_ONCE)
        await worker.async_run()

    pool = await create_pool(settings, default_queue_name=QUEUE)
    return lambda: pool.enqueue_job("empty")


async def saq(mode: str, url: str) -> Enqueue | None:
    """SAQ, with as many jobs at once as the others."""
    from saq import Queue, Worker

    queue = Queue.from_url(url, name=QUEUE)

    async def job(_: Any) -> None:
        await empty()

    if mode == "work":
        worker: Any = Worker(queue, [("empty", job)], concurrency=AT_ONCE)
        await worker.start()

    await queue.connect()
    return lambda: queue.enqueue("empty")


async def main(kind: str, mode: str, url: str, *file: str) -> None:
    """Work for ever, or enqueue what is asked for."""
    global done  # noqa: PLW0603 - the counter of this process

    if file:
        with open(file[0], "r+b") as opened:  # noqa: ASYNC230, PTH123 - before anything else
            done = mmap.mmap(opened.fileno(), 8)  # type: ignore[assignment]

    enqueue = await {"ours": ours, "taskiq": taskiq, "arq": arq, "saq": saq}[kind](mode, url)
    assert enqueue is not None
    print("ready", flush=True)

    while line := await asyncio.to_thread(sys.stdin.readline):
        left = int(line)

        async def caller() -> None:
            nonlocal left

            while left > 0:
                left -= 1
                await enqueue()

        await asyncio.gather(*(caller() for _ in range(50)))
        print("enqueued", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
