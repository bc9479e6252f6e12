"""The programs that the tests of several processes run; not a test module.

python _child.py fleet URL PROCESSES ROUNDS FILE lock|none
python _child.py hold URL NAME EXPIRE
python _child.py wait URL NAME HEARTBEAT
python _child.py write URL NAME EXPIRE DATABASE
python _child.py limit URL real|twin COST SECONDS    all clocks of the process are wrong by so much
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from ws_redislock import (
    FrequencyLimiter,
    LockLost,
    MutexLock,
    SlidingWindowLimiter,
    TokenBucketLimiter,
)
from ws_redislock._redis.scripts import load
from ws_redislock.fencing import guarded_update
from ws_redislock.sync import MutexLock as BlockingMutexLock


def say(*words: object) -> None:
    """Report something to the test."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def count(url: str, rounds: int, file: Path, kind: str) -> None:
    """Increment a number in a file, by reading, sleeping and writing."""
    with BlockingRedis.from_url(url) as client:
        for _ in range(rounds):
            lock = (
                contextlib.nullcontext() if kind == "none" else BlockingMutexLock(client, "count", 60).hold()
            )

            with lock:
                number = int(file.read_text() or 0)  # it is empty while another writes it
                time.sleep(0.0005)
                file.write_text(str(number + 1))


def fleet(url: str, processes: str, rounds: str, file: str, kind: str) -> None:
    """Let many processes count at the same time."""
    children = []

    for _ in range(int(processes)):
        child = os.fork()

        if child == 0:
            code = 1

            try:
                count(url, int(rounds), Path(file), kind)
                code = 0
            finally:
                os._exit(code)

        children.append(child)

    say("ended", sum(os.waitpid(child, 0)[1] != 0 for child in children))


async def hold(url: str, name: str, expire: str) -> None:
    """Hold a lock until killed."""
    lock = MutexLock(Redis.from_url(url), name, float(expire))
    await lock.acquire()
    say("held", lock.fence)
    await asyncio.sleep(600)


async def wait(url: str, name: str, heartbeat: str) -> None:
    """Wait for a lock until killed."""
    lock = MutexLock(Redis.from_url(url), name, 60, heartbeat=float(heartbeat))
    task = asyncio.create_task(lock.acquire(None))

    while await lock.waiters() == 0:
        await asyncio.sleep(0.005)

    say("waiting")
    await task
    say("held")


async def write(url: str, name: str, expire: str, database: str) -> None:
    """Hold a lock; when it is lost, write all the same, with the fence."""
    lock = MutexLock(Redis.from_url(url), name, float(expire))
    fence = 0

    try:
        async with lock.hold() as held:
            fence = held.fence
            say("held", fence)
            await asyncio.sleep(600)
    except LockLost:
        say("lost")

    with contextlib.closing(sqlite3.connect(database, timeout=30)) as db, db:
        statement = guarded_update("stock", ["amount"], key="id")
        rows = db.execute(statement, {"amount": 1, "id": 7, "fence": fence}).rowcount
        say("written" if rows else "refused")


class ClientTimed:
    """A deliberately broken limiter: the log's script, given the time by its client."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def hit(self, key: str, cost: int) -> bool:
        """Hit a window of 60 s that holds three."""
        text = load("limit_sliding").text.replace("call('TIME')", "{ARGV[4], ARGV[5]}")
        seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
        reply = await self._client.eval(text, 1, f"twin:{key}", 60_000_000, 3, cost, seconds, microseconds)
        return bool(reply[0])


def shift(seconds: float) -> None:
    """Make every clock of this process wrong, as a wrong date and another uptime do."""
    for name in ("time", "monotonic"):
        real, real_ns = getattr(time, name), getattr(time, f"{name}_ns")
        setattr(time, name, lambda real=real: real() + seconds)
        setattr(time, f"{name}_ns", lambda real_ns=real_ns: real_ns() + int(seconds * 1e9))

    get = time.clock_gettime
    time.clock_gettime = lambda clock: get(clock) + seconds


async def limit(url: str, kind: str, cost: str) -> None:
    """Hit each limiter of a kind twice."""
    async with Redis.from_url(url) as client:
        if kind == "twin":
            twin = ClientTimed(client)
            say("allowed", *[int(await twin.hit("k", int(cost))) for _ in range(2)])
            return

        for limiter in (
            FrequencyLimiter(client, 60, 3),
            SlidingWindowLimiter(client, 60, 3),
            TokenBucketLimiter(client, 0.001, 3),
        ):
            say("allowed", *[int((await limiter.hit("k", int(cost))).allowed) for _ in range(2)])


if __name__ == "__main__":
    mode, *arguments = sys.argv[1:]

    if mode == "fleet":
        fleet(*arguments)
    else:
        if mode == "limit":
            shift(float(arguments.pop()))

        modes: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
            "hold": hold,
            "wait": wait,
            "write": write,
            "limit": limit,
        }
        asyncio.run(modes[mode](*arguments))
