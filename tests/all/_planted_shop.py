"""A small shop with a switch for each of twenty faults; without one it is sound."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import IO

from ws_pool import atomic, sql_pool_manager
from ws_pool.redis import RedisPool
from ws_web import settings

FAULTS = (
    "a connection is kept",
    "a task runs on",
    "a thread runs on",
    "a file is kept open",
    "a file is forgotten",
    "a process runs on",
    "a pool is not closed",
    "the environment is changed",
    "a cancellation is swallowed",
    "a cancellation becomes an error",
    "a cancellation keeps the permit",
    "a cancellation halves the transfer",
    "a permit is lost by the second cancellation",
    "retries never end",
    "the reply is awaited for ever",
    "retries do not slow down",
    "a lost reply is counted twice",
    "a lost request is a success",
    "a cut connection is kept",
    "a setting is read too early",
)


kept: list[Callable[[], object]] = []
"""How to give back what faults have kept."""
held: list[object] = []
"""What belongs to a loop that has ended, held so that no later test is disturbed by it."""


def give_back() -> None:
    """Restore what faults have kept, so that one test does not disturb the next."""
    while kept:
        kept.pop()()


class Shop:
    """The shop on the default SQL pool and a Redis pool, with one fault."""

    def __init__(self, redis: RedisPool, fault: str | None = None) -> None:
        self.fault = fault
        self.permits = 2
        self._redis = redis
        self._debug = settings.DEBUG
        self._client: AbstractAsyncContextManager[object] | None = None
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def close(self) -> None:
        """Hang up, and release a connection that was kept, for which its pool would wait."""
        await self._hang_up()

        if self._client is not None:
            await self._client.__aexit__(None, None, None)

    async def buy(self, item: str, receipt: Path) -> None:
        """Take a piece of an item, write a receipt, and count."""
        async with atomic():
            taken = await sql_pool_manager.update(
                "UPDATE items SET pieces = pieces - 1 WHERE name = :item AND pieces > 0", item=item
            )

        if not taken:
            raise LookupError(item)

        await self._redis.redis.incr("sold")
        self._write(receipt, item)
        await self._keep()

    async def move(self, pieces: int) -> None:
        """Move pieces from one item to the other."""
        there = "UPDATE items SET pieces = pieces - :pieces WHERE name = 'tea'"
        here = "UPDATE items SET pieces = pieces + :pieces WHERE name = 'honey'"

        if self.fault == "a cancellation halves the transfer":
            await sql_pool_manager.update(there, pieces=pieces)
            await asyncio.sleep(0)
            await sql_pool_manager.update(here, pieces=pieces)
            return

        async with atomic():
            await sql_pool_manager.update(there, pieces=pieces)
            await asyncio.sleep(0)
            await sql_pool_manager.update(here, pieces=pieces)

    async def pack(self) -> None:
        """Use one of two permits for a while."""
        self.permits -= 1

        if self.fault == "a cancellation keeps the permit":
            await asyncio.sleep(1)
            self.permits += 1
            return

        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            if self.fault == "a cancellation is swallowed":
                return

            if self.fault == "a cancellation becomes an error":
                raise RuntimeError("not packed") from None

            raise
        finally:
            if self.fault == "a permit is lost by the second cancellation":
                await asyncio.sleep(1)
                self.permits += 1
            else:
                self.permits += 1
                await asyncio.sleep(1)

    async def ship(self, post: Callable[[], Awaitable[str]]) -> str:
        """Ask the post until it takes the parcel, for a minute at most."""
        pause = 1.0

        async with asyncio.timeout(None if self.fault == "retries never end" else 60):
            while True:
                try:
                    if self.fault == "the reply is awaited for ever":
                        return await post()

                    async with asyncio.timeout(10):
                        return await post()
                except (OSError, TimeoutError):
                    await asyncio.sleep(pause)

                    if self.fault != "retries do not slow down":
                        pause = min(pause * 2, 30)

    async def pay(self, host: str, port: int, key: str) -> str:
        """Pay over a connection of ours; a lost reply is asked for again under the same key."""
        for attempt in range(3):
            try:
                number = f"{key}-{attempt}" if self.fault == "a lost reply is counted twice" else key
                return await self._ask(host, port, number)
            except OSError:
                if self.fault == "a lost request is a success":
                    return "paid"

                if self.fault != "a cut connection is kept":
                    await self._hang_up()

        raise ConnectionError("the bank does not answer")

    def describe(self, error: Exception) -> str:
        """Return what a customer may see of an error."""
        debug = self._debug if self.fault == "a setting is read too early" else settings.DEBUG
        return repr(error) if debug else "sorry"

    async def _ask(self, host: str, port: int, key: str) -> str:
        if self._connection is None:
            self._connection = await asyncio.open_connection(host, port)

        reader, writer = self._connection
        writer.write(f"{key}\n".encode())
        reply = await reader.readline()

        if not reply:
            raise ConnectionResetError("the bank has hung up")

        return reply.decode().strip()

    async def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection[1].close()
            self._connection = None

    def _write(self, receipt: Path, item: str) -> None:
        if self.fault == "a file is forgotten":
            receipt.open("w").write(item)
        elif self.fault == "a file is kept open":
            file: IO[str] = receipt.open("w")
            kept.append(file.close)
        else:
            receipt.write_text(item)

    async def _keep(self) -> None:
        """Keep what the fault says."""
        self._keep_of_the_system()

        if self.fault == "a connection is kept":
            client = sql_pool_manager.get_client(alone=True)
            await client.__aenter__()
            self._client = client
        elif self.fault == "a task runs on":
            task = asyncio.create_task(asyncio.sleep(3600))
            kept.append(task.cancel)
        elif self.fault == "a pool is not closed":
            pool = RedisPool(url=self._redis.url)
            await pool.start()
            held.append(pool)

    def _keep_of_the_system(self) -> None:
        if self.fault == "a thread runs on":
            ending = threading.Event()
            threading.Thread(target=ending.wait).start()
            kept.append(ending.set)
        elif self.fault == "a process runs on":
            process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
            kept.append(process.communicate)
        elif self.fault == "the environment is changed":
            os.environ["SHOP"] = "open"
            kept.append(lambda: os.environ.pop("SHOP"))
