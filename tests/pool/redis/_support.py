"""What several tests of Redis pools need."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ws_pool._redis.cluster.topology import Topology
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool.redis import RedisPool


class SilentOwner:
    """Owns a connection, and ignores all reports."""

    def on_room(self, connection: PipelinedConnection) -> None: ...

    def on_loss(self, connection: PipelinedConnection, reason: str) -> None: ...

    def on_push(self, connection: PipelinedConnection, message: list[Any]) -> None: ...


def topology_of(pool: RedisPool) -> Topology:
    """Return what the pool knows about its cluster."""
    assert pool._backend is not None
    assert pool._backend.topology is not None
    return pool._backend.topology


async def eventually(check: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(30):
        while not check():
            await asyncio.sleep(0.01)
