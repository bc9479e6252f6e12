"""Pending replies: one entry for each command that was sent. Pure."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from ws_pool._redis.errors import ConnectionLost
from ws_pool.errors import WsError


class PendingReply(Protocol):
    """Where a reply goes; an `asyncio.Future` is one."""

    def done(self) -> bool:
        """Return whether the caller was cancelled, or has its reply."""
        ...

    def set_result(self, result: Any, /) -> None:  # Any: whatever a server may reply
        """Take the reply; raise InvalidStateError when the caller was cancelled."""

    def set_exception(self, exception: BaseException, /) -> None:
        """Take the server's error, or ours when there will be no reply."""


class BatchReply:
    """One pending reply for several commands that were written as one piece."""

    __slots__ = ("_count", "_future", "_replies")

    def __init__(self, future: asyncio.Future[list[Any]], count: int) -> None:
        self._future = future
        self._count = count
        self._replies: list[Any] = []

    def done(self) -> bool:
        """Return whether the caller was cancelled, or has all replies."""
        return self._future.done()

    def set_result(self, result: Any, /) -> None:
        """Take the next reply."""
        replies = self._replies
        replies.append(result)

        if len(replies) == self._count:
            self._future.set_result(replies)

    def set_exception(self, exception: BaseException, /) -> None:
        """Take an error of the server as the next reply; any other error ends the whole batch."""
        if not isinstance(exception, ConnectionLost | WsError):
            self.set_result(exception)
        elif not self._future.done():
            self._future.set_exception(exception)
