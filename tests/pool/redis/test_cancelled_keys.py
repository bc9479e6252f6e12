"""Keys of cancelled commands, which later commands must not overtake."""

from __future__ import annotations

import asyncio

from tests.pool.redis._support import SilentOwner
from ws_pool._redis.connection.cancelled import CancelledKeys
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool._redis.connection.queue import Limits


async def test_a_flood_of_cancelled_commands_is_forgotten() -> None:
    """Of more than a thousand cancelled keys those that were answered are dropped."""
    connection = PipelinedConnection(SilentOwner(), Limits())
    cancelled_keys = CancelledKeys(lambda value: str(value).encode())

    for number in range(1_001):
        connection.pending.append(asyncio.get_running_loop().create_future())
        cancelled_keys.add(connection, [("SET", f"k{number}", 0)])

        if number == 999:
            connection.answered = 900

    assert not cancelled_keys.cover(connection, [("GET", "k10")])
    assert cancelled_keys.cover(connection, [("GET", "k950")])
    assert len(cancelled_keys._last) < 1_001
