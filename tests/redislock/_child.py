"""The programs that the tests of several processes run; not a test module.

python _child.py fleet URL PROCESSES ROUNDS FILE lock|none
python _child.py hold URL NAME EXPIRE
python _child.py wait URL NAME HEARTBEAT
python _child.py write URL NAME EXPIRE DATABASE
python _child.py limit URL SECONDS KIND     hits limiters with a clock that is wrong by so many seconds
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

from ws_redislock import LockLost, MutexLock
from ws_redislock.fencing import guarded_update
from ws_redislock.sync import MutexLock as BlockingMutexLock


def say(*words: object) -> None:
    """Tell the test something."""
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

    while await lock.waiters() == 0:  # noqa: ASYNC110 - the queue is on the server
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


if __name__ == "__main__":
    mode, *arguments = sys.argv[1:]

    if mode == "fleet":
        fleet(*arguments)
    else:
        modes: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
            "hold": hold,
            "wait": wait,
            "write": write,
        }
        asyncio.run(modes[mode](*arguments))
