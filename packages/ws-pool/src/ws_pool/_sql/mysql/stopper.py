"""Stopping statements on the server whose caller has gone, so that they hold no locks for nobody.

A server does not see that a connection is closed while it is at work on a statement. The connection
of such a statement is never used again, so that killing it can hit nobody else, provided that it is
the same one to the server: between the two there may be a proxy, or a balancer that leads to another
server. What proves it is the client's port, which the server sees too and a proxy replaces.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from ws_pool._sql.mysql.connection import MysqlConnection

logger = logging.getLogger("ws_pool.sql")

_MOST = 1_000  # statements that wait to be stopped; beyond, the server is left to end them itself
_CLOSING = 1.0  # seconds
_VERIFY = "SELECT HOST FROM information_schema.PROCESSLIST WHERE ID = %s"


class Victim(NamedTuple):
    """A connection that was cut short: its number on the server, and the client's end of it."""

    thread_id: int
    port: int


class StatementStopper:
    """Kills connections one after the other, over one of its own that is open only meanwhile."""

    __slots__ = ("_limit", "_open", "_task", "_victims", "stopped")

    def __init__(self, connect: Callable[[], Awaitable[MysqlConnection]], limit: float) -> None:
        self.stopped: int = 0
        self._open = connect
        self._limit = limit  # seconds for each step
        self._victims: deque[Victim] = deque(maxlen=_MOST)
        self._task: asyncio.Task[None] | None = None

    def stop(self, victim: Victim) -> None:
        """Have a connection killed; this returns at once."""
        self._victims.append(victim)

        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Wait for what is being stopped, though not for a server that does not answer."""
        if self._task is not None and not (await asyncio.wait({self._task}, timeout=_CLOSING))[0]:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(self._limit):
                killer = await self._open()

            try:
                while self._victims:
                    async with asyncio.timeout(self._limit):
                        await self._kill(killer, self._victims.popleft())
            finally:
                killer.terminate()
        except Exception as error:  # noqa: BLE001 - the statement goes on, as it would have without us
            logger.debug("a statement whose caller has gone could not be stopped: %r", error)
            self._victims.clear()

    async def _kill(self, killer: MysqlConnection, victim: Victim) -> None:
        rows = (await killer.run(_VERIFY, (victim.thread_id,))).rows

        if rows and str(rows[0][0]).rpartition(":")[2] == str(victim.port):
            await killer.run(f"KILL {victim.thread_id:d}", None)
            self.stopped += 1
