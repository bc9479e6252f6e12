"""One question to a server, over a connection that is opened for it."""

from __future__ import annotations

import asyncio
from typing import Any

from ws_pool._redis.connection.encoder import CommandEncoder
from ws_pool._redis.connection.endpoint import Endpoint, connect
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool._redis.connection.queue import Limits

__all__ = ("request_once",)


async def request_once(endpoint: Endpoint, packer: CommandEncoder, *words: str, timeout: float) -> Any:  # noqa: ASYNC109 - one budget for several steps
    """
    Connect, ask and hang up.

    Args:
        endpoint: Where to and how.
        packer: Packs commands.
        *words: The command.
        timeout: Seconds for all of it.

    Returns:
        The reply, not decoded.

    Raises:
        OSError: The socket could not be opened.
        TimeoutError: It took too long.
        RedisError: The server refused the greeting, or the command.
        ConnectionLost: The server closed the connection.
    """
    link = PipelinedConnection(_Alone(), Limits(command_timeout=timeout))

    try:
        async with asyncio.timeout(timeout):
            await connect(endpoint, link, packer, timeout=timeout)
            slot = asyncio.get_running_loop().create_future()
            link.send(slot, packer.pack(words))
            return await slot
    finally:
        link.kill("asked")


class _Alone:
    """The owner of a link that is used for one question."""

    def link_has_room(self, link: PipelinedConnection) -> None:
        """Do nothing."""

    def link_lost(self, link: PipelinedConnection, reason: str) -> None:
        """Do nothing: the slot was told."""

    def link_pushed(self, link: PipelinedConnection, message: list[Any]) -> None:
        """Do nothing."""
