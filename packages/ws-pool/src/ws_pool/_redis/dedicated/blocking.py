"""Blocking commands that can be cancelled without eating what they wait for.

Closing the socket of a cancelled BLPOP is not enough: until the server notices, the abandoned waiter
may be given an item, and one that is on its way back is lost. So a cancelled command is ended by
CLIENT UNBLOCK, its reply is awaited, and an item that it did take goes back to where it came from.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from ws_pool._redis.commands.command import Command
from ws_pool._redis.errors import ConnectionLost
from ws_pool.errors import WsError

__all__ = ("cancel_blocking", "undo_of")

_logger: Final = logging.getLogger("ws_pool.redis")

_MOVE_BACK: Final = """\
local index = ARGV[2] == 'LEFT' and 0 or -1
if redis.call('LINDEX', KEYS[1], index) == ARGV[1] then
  return redis.call('LMOVE', KEYS[1], KEYS[2], ARGV[2], ARGV[3])
end
"""
_FIRST_PAUSE: Final = 0.002

Request = Callable[[Sequence[Any]], Awaitable[Any]]


async def cancel_blocking(
    connection: AbstractConnection,
    command: Command,
    client_id: int,
    request: Request,
    first: Awaitable[Any],
) -> bool:
    """End a blocking command and undo what it did."""
    reading = asyncio.ensure_future(
        connection.read_response(disable_decoding=True, disconnect_on_error=False)
    )
    pause, lost = _FIRST_PAUSE, False
    unblocking = first

    try:
        while True:
            try:
                await unblocking
            except ConnectionLost as error:  # it is asked again, over another connection
                lost |= error.sent

            if (await asyncio.wait([reading], timeout=pause))[0]:
                break

            unblocking = request(
                ("CLIENT", "UNBLOCK", client_id)
            )  # the command may have come after the last one
            pause = min(0.1, pause * 2)

        try:
            reply = await reading
        except ResponseError:
            return not lost
    finally:
        reading.cancel()

    undo = undo_of(command, reply)

    while undo is not None:
        try:
            await request(undo)
        except ConnectionLost as error:
            if not error.sent:
                continue

            _logger.exception(
                "a cancelled %s has taken %r, which may not have been put back", command.name, reply
            )
        except (RedisError, WsError):
            _logger.exception("a cancelled %s has taken %r, which cannot be put back", command.name, reply)

        break

    return not lost


def undo_of(command: Command, reply: Any) -> tuple[Any, ...] | None:
    """
    Find the command that undoes a blocking command.

    Example:
        >>> undo_of(Command(("BLPOP", "queue", 0)), [b"queue", b"item"])
        ('LPUSH', b'queue', b'item')
    """
    undo = _UNDO.get(command.name)
    return None if reply is None or undo is None else undo(command.words, reply)


def _pushed_left(_: Sequence[Any], reply: Any) -> tuple[Any, ...]:
    return ("LPUSH", *reply)


def _pushed_right(_: Sequence[Any], reply: Any) -> tuple[Any, ...]:
    return ("RPUSH", *reply)


def _pushed_many(args: Sequence[Any], reply: Any) -> tuple[Any, ...]:
    key, items = reply
    return ("LPUSH" if _left(args) else "RPUSH", key, *reversed(items))


def _added(_: Sequence[Any], reply: Any) -> tuple[Any, ...]:
    key, member, score = reply
    return ("ZADD", key, score, member)


def _added_many(_: Sequence[Any], reply: Any) -> tuple[Any, ...]:
    key, pairs = reply
    return ("ZADD", key, *(part for member, score in pairs for part in (score, member)))


def _moved(args: Sequence[Any], reply: Any) -> tuple[Any, ...]:
    source, target, left, right = args[1:5]
    return ("EVAL", _MOVE_BACK, 2, target, source, reply, _word(right), _word(left))


def _moved_right(args: Sequence[Any], reply: Any) -> tuple[Any, ...]:
    return ("EVAL", _MOVE_BACK, 2, args[2], args[1], reply, "LEFT", "RIGHT")


_UNDO: Final[dict[str, Callable[[Sequence[Any], Any], tuple[Any, ...]]]] = {
    "BLPOP": _pushed_left,
    "BRPOP": _pushed_right,
    "BLMPOP": _pushed_many,
    "BZPOPMIN": _added,
    "BZPOPMAX": _added,
    "BZMPOP": _added_many,
    "BLMOVE": _moved,
    "BRPOPLPUSH": _moved_right,
}


def _left(args: Sequence[Any]) -> bool:
    return _word(args[3 + int(args[2])]) == "LEFT"


def _word(value: Any) -> str:  # Any: bytes or str
    return (value.decode() if isinstance(value, bytes) else str(value)).upper()
