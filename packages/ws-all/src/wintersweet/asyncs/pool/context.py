"""A client that is taken with ``await`` or for the length of a block, and which client is whose."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

from ws_pool.context import TaskBinding as TaskBinding

__all__ = ("ClientContext", "TaskBinding")

T = TypeVar("T")


class ClientContext(Generic[T]):
    """
    What ``get_client`` returned in 1.x: ``client = await …``, or ``async with … as client``.

    ``take`` returns a client; given True, one of its own even inside of another block. ``end`` returns
    what a block took.
    """

    __slots__ = ("_alone", "_end", "_take")

    def __init__(
        self,
        take: Callable[[bool], Awaitable[tuple[T, Callable[[], Awaitable[Any]] | None]]],
        *,
        alone: bool,
    ) -> None:
        self._take = take
        self._alone = alone
        self._end: Callable[[], Awaitable[Any]] | None = None

    def __await__(self) -> Generator[Any, Any, T]:
        # Awaited, it is given back by hand: it must not be the client of a block that ends earlier.
        client, _ = yield from self._take(True).__await__()
        return client

    async def __aenter__(self) -> T:
        client, self._end = await self._take(self._alone)
        return client

    async def __aexit__(self, *_error: object) -> None:
        end, self._end = self._end, None

        if end is not None:
            await end()
