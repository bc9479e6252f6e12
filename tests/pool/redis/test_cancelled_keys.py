"""Keys of cancelled commands, which later commands must not overtake."""

from __future__ import annotations

import asyncio
from typing import Any

from ws_pool._redis.connection.cancelled import CancelledKeys
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool._redis.connection.queue import Limits


class _Owner:
    """Hears of nothing."""

    def link_has_room(self, link: PipelinedConnection) -> None: ...

    def link_lost(self, link: PipelinedConnection, reason: str) -> None: ...

    def link_pushed(self, link: PipelinedConnection, message: list[Any]) -> None: ...


async def test_a_flood_of_cancelled_commands_is_forgotten() -> None:
    """Of more than a thousand cancelled keys those that were answered are dropped."""
    link = PipelinedConnection(_Owner(), Limits())
    abandoned = CancelledKeys(lambda value: str(value).encode())

    for number in range(1_001):
        link.pending.append(asyncio.get_running_loop().create_future())
        abandoned.add(link, [("SET", f"k{number}", 0)])

        if number == 999:
            link.answered = 900

    assert not abandoned.concern(link, [("GET", "k10")])
    assert abandoned.concern(link, [("GET", "k950")])
    assert len(abandoned._last) < 1_001
