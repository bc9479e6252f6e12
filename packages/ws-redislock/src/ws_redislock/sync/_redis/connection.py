"""Sending commands on a blocking connection with a timeout of their own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from redis import exceptions

from ws_redislock._redis.script_client import Argument
from ws_redislock.sync._redis.spare_connection import lend

__all__ = ("send_all",)


def send_all(
    pool: Any, commands: Sequence[tuple[Argument, ...]], within: float
) -> list[Any]:  # Any: the driver types its pool for its own use only; a reply is whatever it is
    """
    Send commands over one connection.

    Args:
        pool: The pool to take the connection from; one is made beside it when it has none to spare.
        commands: The commands.
        within: Seconds for all of them.

    Returns:
        The replies.

    Raises:
        TimeoutError: There was no reply in time.
        redis.exceptions.RedisError: The connection broke, or the first error reply.
    """
    end = time.monotonic() + within
    connection, home = lend(pool)
    replies: list[Any] = []

    try:
        for command in commands:
            connection.send_command(*command)

        while len(replies) < len(commands) and connection.can_read(max(0.0, end - time.monotonic())):
            replies.append(connection.read_response())

        if len(replies) == len(commands):
            return replies

        connection.disconnect()
    except BaseException as error:
        if not isinstance(error, exceptions.ResponseError) or len(replies) + 1 < len(commands):
            connection.disconnect()  # a reply may still come, and must not be taken for another's

        raise
    finally:
        home.release(connection)

    raise TimeoutError("no reply in time")
