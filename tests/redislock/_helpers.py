"""What the tests of faults share; not a test module."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from redis import RedisCluster

from ws_redislock._lock.base import BaseLock
from ws_redislock._redis.scripts import load

CHILD = Path(__file__).with_name("_child.py")


async def until_waiting(lock: BaseLock, count: int = 1) -> None:
    """Let others go on until so many wait for a lock."""
    while await lock.waiters() < count:
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def child(*arguments: object) -> AsyncIterator[Process]:
    """Run a child's program; it is killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), *map(str, arguments), stdout=PIPE
    )

    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()

        await process.communicate()


async def says(process: Process, word: str) -> list[str]:
    """Read a child's next line, which begins with a word."""
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode().split()
    assert line[:1] == [word], line
    return line


@contextlib.contextmanager
def broken(part: str, by: str, *scripts: str) -> Iterator[None]:
    """Replace a part of some scripts for a block: the twin that must fail where the real one does not."""
    before = [(script, script.text, script.sha) for script in map(load, scripts)]

    for script, text, _ in before:
        assert part in text, script.name
        twin = text.replace(part, by)
        object.__setattr__(script, "text", twin)
        object.__setattr__(script, "sha", hashlib.sha1(twin.encode(), usedforsecurity=False).hexdigest())

    try:
        yield
    finally:
        for script, text, sha in before:
            object.__setattr__(script, "text", text)
            object.__setattr__(script, "sha", sha)


@contextlib.contextmanager
def cluster_client(url: str, **options: Any) -> Iterator[RedisCluster]:
    """Open a cluster's client for threads; its own ``close`` leaves the connections to nodes open."""
    with RedisCluster.from_url(url, **options) as client:
        try:
            yield client
        finally:
            client.disconnect_connection_pools()


@contextlib.contextmanager
def open_to_all() -> Iterator[None]:
    """Let everybody enter for a block: the twin of every exclusion, which must fail."""
    with broken("if not mine and not may_enter() then", "if false then", "enter"):
        yield


class Lag:
    """How late the event loop was at worst: what a busy machine adds to any bound of time."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def measure(self) -> None:
        """Measure until cancelled."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            self.worst = max(self.worst, time.monotonic() - before - 0.005)


@contextlib.asynccontextmanager
async def lag() -> AsyncIterator[Lag]:
    """Measure the loop's lag for a block."""
    meter = Lag()
    task = asyncio.create_task(meter.measure())

    try:
        yield meter
    finally:
        task.cancel()
