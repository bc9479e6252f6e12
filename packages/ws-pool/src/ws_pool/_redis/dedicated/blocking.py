"""Blocking commands that can be cancelled without losing what they wait for.

Closing the socket of a cancelled BLPOP is not enough: until the server notices, it may pop an item for
the client that is gone, and an item that is already on its way is lost. So a cancelled command is
ended by CLIENT UNBLOCK, its reply is awaited, and an item that it took is put back where it came from.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from ws_core import backoff
from ws_pool._redis.commands.command import Command, word_of
from ws_pool._redis.errors import AcquireTimeout, ConnectionLost, UnavailableError
from ws_pool.errors import WsError

_logger: Final = logging.getLogger("ws_pool.redis")
UNDO_TIMEOUT: Final = 60.0
"""Seconds to end a cancelled command and to put an item back, while the server is busy or away."""

_MOVE_BACK: Final = """\
local index = ARGV[2] == 'LEFT' and 0 or -1
if redis.call('LINDEX', KEYS[1], index) == ARGV[1] then
  return redis.call('LMOVE', KEYS[1], KEYS[2], ARGV[2], ARGV[3])
end
"""
_PAUSES: Final = (0.002, 0.1)  # seconds before an UNBLOCK is repeated: the first time, and at most

Request = Callable[[Sequence[Any]], Awaitable[Any]]


async def cancel_blocking(
    connection: AbstractConnection,
    command: Command,
    client_id: int,
    request: Request,
    first: Awaitable[Any],
) -> bool:
    """
    End a blocking command and undo what it did; ``first`` is the reply to an UNBLOCK that was sent already.

    Return whether the connection may be used again: an UNBLOCK whose reply was lost may come later,
    and would then end what another task waits for. Raise when the connection was lost.
    """
    reading = asyncio.ensure_future(
        connection.read_response(disable_decoding=True, disconnect_on_error=False)
    )
    unblocking = asyncio.ensure_future(first)
    lost = False

    try:
        # An UNBLOCK does nothing when it overtakes the command, which goes over another connection: it is
        # repeated until the command has ended. What is read counts first, whatever became of the UNBLOCK:
        # a server that was busy for long may have answered the command long before.
        for attempt in itertools.count(1):
            await asyncio.wait([reading, unblocking], return_when=asyncio.FIRST_COMPLETED)

            if not reading.done():
                lost |= _was_lost(unblocking)
                await asyncio.wait([reading], timeout=backoff.delay(attempt, *_PAUSES))

            if reading.done():
                break

            unblocking = asyncio.ensure_future(request(("CLIENT", "UNBLOCK", client_id)))

        try:
            reply = reading.result()
        except ResponseError:
            pass  # UNBLOCKED, or refused: nothing was taken
        else:
            await _put_back(command, reply, request)

        await asyncio.wait([unblocking])
        return not (lost or _was_lost(unblocking))
    finally:
        reading.cancel()
        unblocking.cancel()


def takes_items(command: Command) -> bool:
    """Return whether a blocking command takes away what it returns."""
    return command.name in _UNDO


def _was_lost(unblocking: asyncio.Future[Any]) -> bool:
    """Return whether an UNBLOCK may still come; raise when no other can be sent."""
    try:
        unblocking.result()
    except ConnectionLost as error:
        return error.sent
    except (AcquireTimeout, UnavailableError):  # not sent: the server is away, which may pass
        return False

    return False


async def _put_back(command: Command, reply: Any, request: Request) -> None:
    """Undo what a command did; an item that cannot be put back is logged."""
    undo = undo_of(command, reply)

    while undo is not None:
        try:
            await request(undo)
        except asyncio.CancelledError:
            _logger.exception(
                "a cancelled %s has taken %r, which was not put back in time", command.name, reply
            )
            raise
        except ConnectionLost as error:
            if error.sent:  # putting it back twice would be as wrong as losing it
                _logger.exception(
                    "a cancelled %s has taken %r, which may not have been put back", command.name, reply
                )
                return
        except (AcquireTimeout, UnavailableError):
            await asyncio.sleep(_PAUSES[1])
        except (RedisError, WsError):
            _logger.exception("a cancelled %s has taken %r, which cannot be put back", command.name, reply)
            return
        else:
            return


def undo_of(command: Command, reply: Any) -> tuple[Any, ...] | None:
    """
    Find the command that undoes a blocking command.

    Example:
        >>> undo_of(Command(("BLPOP", "queue", 0)), [b"queue", b"item"])
        ('LPUSH', b'queue', b'item')
    """
    undo = _UNDO.get(command.name)
    return None if reply is None or undo is None else undo(command.words, reply)


def _pushed_many(args: Sequence[Any], reply: Any) -> tuple[Any, ...]:
    key, items = reply
    side = word_of(args[3 + int(args[2])])
    return ("LPUSH" if side == "LEFT" else "RPUSH", key, *reversed(items))


def _added_many(_: Sequence[Any], reply: Any) -> tuple[Any, ...]:
    key, pairs = reply
    return ("ZADD", key, *(part for member, score in pairs for part in (score, member)))


def _moved(args: Sequence[Any], reply: Any) -> tuple[Any, ...]:
    source, target, left, right = args[1:5]
    return ("EVAL", _MOVE_BACK, 2, target, source, reply, word_of(right), word_of(left))


_UNDO: Final[dict[str, Callable[[Sequence[Any], Any], tuple[Any, ...]]]] = {
    "BLPOP": lambda _, reply: ("LPUSH", *reply),
    "BRPOP": lambda _, reply: ("RPUSH", *reply),
    "BLMPOP": _pushed_many,
    "BZPOPMIN": lambda _, reply: ("ZADD", reply[0], reply[2], reply[1]),  # key, member, score
    "BZPOPMAX": lambda _, reply: ("ZADD", reply[0], reply[2], reply[1]),
    "BZMPOP": _added_many,
    "BLMOVE": _moved,
    "BRPOPLPUSH": lambda args, reply: _moved((*args[:3], "RIGHT", "LEFT"), reply),
}
