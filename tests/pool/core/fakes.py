"""A driver without a network, for tests of the core in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from ws_pool.pool import Pool


def now() -> float:
    """The running loop's time."""
    return asyncio.get_running_loop().time()


class FakeConnection:
    """A connection on which each request gets a reply that carries the request's number, in order."""

    def __init__(self, number: int, rng: random.Random) -> None:
        self.number = number
        self.rng = rng
        self.open = True
        self.broken = False
        self.silent = False
        self.midway = False
        self.dirty = False
        self.inbox: asyncio.Queue[int] = asyncio.Queue()

    async def exchange(self, request: int, delay: float) -> int:
        """Send a request and wait for the reply; when cut short, the reply is still on its way."""
        if self.broken:
            message = "connection lost"
            raise ConnectionError(message)

        self.midway = True
        asyncio.get_running_loop().call_later(delay, self.inbox.put_nowait, request)
        reply = await self.inbox.get()
        self.midway = False
        return reply


class FakeConnector:
    """
    Opens fake connections; delays and failures come from a seeded generator.

    ``careless=True`` is the broken twin: it takes a connection that was cut short for sound.
    """

    def __init__(self, seed: int = 0, *, failures: float = 0.0, careless: bool = False) -> None:
        self.rng = random.Random(seed)
        self.failures = failures
        self.careless = careless
        self.down = False
        self.silent = False
        self.reset_hangs = False
        self.delay: Callable[[], float] = lambda: self.rng.choice((0.0, 0.001, 0.01, 0.2))
        self.connections: list[FakeConnection] = []
        self.opening = 0
        self.most_opening = 0
        self.most_open = 0
        self.resets = 0
        self.pings = 0

    def __str__(self) -> str:
        return "fake://server"

    @property
    def live(self) -> list[FakeConnection]:
        """The connections that are open."""
        return [conn for conn in self.connections if conn.open]

    async def _io(self) -> None:
        if self.silent:
            await asyncio.get_running_loop().create_future()

        await asyncio.sleep(self.delay())

        if self.down or self.rng.random() < self.failures:
            message = "connection refused"
            raise ConnectionRefusedError(message)

    async def open(self) -> FakeConnection:
        """Open a connection after a while, or fail."""
        self.opening += 1
        self.most_opening = max(self.most_opening, self.opening)

        try:
            await self._io()
        finally:
            self.opening -= 1

        conn = FakeConnection(len(self.connections), self.rng)
        self.connections.append(conn)
        self.most_open = max(self.most_open, len(self.live))
        return conn

    def is_alive(self, conn: FakeConnection) -> bool:
        """Return whether a connection is sound."""
        return conn.open and not conn.broken and (self.careless or not conn.midway)

    def is_clean(self, conn: FakeConnection) -> bool:
        """Return whether a session is as new."""
        return self.is_alive(conn) and not conn.dirty

    async def ping(self, conn: FakeConnection) -> None:
        """Answer, unless broken."""
        self.pings += 1

        if conn.silent:
            await asyncio.get_running_loop().create_future()

        if conn.broken:
            message = "connection lost"
            raise ConnectionError(message)

        await self._io()

    async def reset(self, conn: FakeConnection) -> None:
        """Clean the session."""
        self.resets += 1

        if self.reset_hangs:
            await asyncio.get_running_loop().create_future()

        await self._io()
        conn.dirty = False

    async def close(self, conn: FakeConnection) -> None:
        """Close after a while, once."""
        await self._io()
        assert conn.open, "closed twice"
        conn.open = False

    def terminate(self, conn: FakeConnection) -> None:
        """Close at once, once."""
        assert conn.open, "closed twice"
        conn.open = False


FakePool = Pool[FakeConnection]


def make_pool(connector: FakeConnector | None = None, **options: Any) -> FakePool:
    """Make a pool on the loop's own time."""
    if connector is None:
        connector = FakeConnector()
        connector.delay = lambda: 0.01

    return Pool(connector, **{"clock": now, "max_size": 2, **options})
