"""One request to a server, over a connection that is opened for it."""

from __future__ import annotations

import asyncio
from typing import Any

from ws_pool._redis.connection.encoder import CommandEncoder
from ws_pool._redis.connection.endpoint import Endpoint, connect
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool._redis.connection.queue import Limits


async def request_once(endpoint: Endpoint, encoder: CommandEncoder, *words: str, timeout: float) -> Any:
    """Connect, send a command, return its reply (not decoded) and close."""
    connection = PipelinedConnection(_NoOwner(), Limits(command_timeout=timeout))

    try:
        async with asyncio.timeout(timeout):
            await connect(endpoint, connection, encoder, timeout=timeout)
            future = asyncio.get_running_loop().create_future()
            connection.send(future, encoder.pack(words))
            return await future
    finally:
        connection.kill("the request is over")


class _NoOwner:
    """The owner of a connection that is used for one request."""

    def on_room(self, connection: PipelinedConnection) -> None:
        """Do nothing."""

    def on_loss(self, connection: PipelinedConnection, reason: str) -> None:
        """Do nothing."""

    def on_push(self, connection: PipelinedConnection, message: list[Any]) -> None:
        """Do nothing."""
