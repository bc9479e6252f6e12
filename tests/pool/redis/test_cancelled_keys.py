"""Keys of cancelled commands, which later commands must not overtake."""

from __future__ import annotations

import asyncio
from typing import Any

from ws_pool._redis.connection.cancelled import CancelledKeys
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool._redis.connection.queue import Limits


class _Owner:
    """Ignores all reports."""

    def on_room(self, connection: PipelinedConnection) -> None: ...

    def on_loss(self, connection: PipelinedConnection, reason: str) -> None: ...

    def on_push(self, connection: PipelinedConnection, message: list[Any]) -> None: ...


async def test_a_flood_of_cancelled_commands_is_forgotten() -> None:
    """Of more than a thousand cancelled keys those that were answered are dropped."""
    connection = PipelinedConnection(_Owner(), Limits())
    cancelled_keys = CancelledKeys(lambda value: str(value).encode())

    for number in range(1_001):
        connection.pending.append(asyncio.get_running_loop().create_future())
        cancelled_keys.add(connection, [("SET", f"k{number}", 0)])

        if number == 999:
            connection.answered = 900

    assert not cancelled_keys.cover(connection, [("GET", "k10")])
    assert cancelled_keys.cover(connection, [("GET", "k950")])
    assert len(cancelled_keys._last) < 1_001
