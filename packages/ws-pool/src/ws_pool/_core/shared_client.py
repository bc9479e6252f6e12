"""The life of a driver's client that all tasks of a loop share: made at the start, lent, closed."""

from __future__ import annotations

import asyncio
import warnings
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import ClassVar, Generic, Self, TypeVar

from ws_pool.errors import ClosedError, NotReadyError, UsageError

__all__ = ("SharedClient",)

ClientT = TypeVar("ClientT")


class SharedClient(ABC, Generic[ClientT]):
    """
    A pool whose driver pools connections by itself: it holds one client.

    A subclass makes the client, checks that a server answers it, and closes it.

    Args:
        name: The pool's name.
        shown: Where it connects to, without secrets.
    """

    _kind: ClassVar[str]

    def __init__(self, name: str, shown: str) -> None:
        self._name = name
        self._shown = shown
        self._client: ClientT | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "new" if self._client is None else "ready"
        return f"<{type(self).__name__} {self._name!r} {state}: {self._shown}>"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        if getattr(self, "_client", None) is not None:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=2, source=self)

    @property
    def name(self) -> str:
        """The pool's name."""
        return self._name

    @property
    def client(self) -> ClientT:
        """
        The driver's client, which all tasks share.

        Raises:
            NotReadyError: The pool was not started.
            ClosedError: The pool was closed.
            UsageError: The pool belongs to another event loop.
        """
        client = self._client

        if client is None:
            if self._closed:
                raise ClosedError(f"{self._kind} pool {self._name!r} is closed", pool=self._name)

            message = f"{self._kind} pool {self._name!r} is not started: enter it with `async with`"
            raise NotReadyError(message, pool=self._name)

        if asyncio.get_running_loop() is not self._loop:
            message = f"{self._kind} pool {self._name!r} belongs to another event loop: make one in this loop"
            raise UsageError(message, pool=self._name)

        return client

    async def start(self) -> None:
        """
        Connect, and check that the right server answers.

        Raises:
            UnavailableError: The server cannot be used; the message says why.
            UsageError: The pool is open already.
        """
        if self._client is not None:
            raise UsageError(f"{self._kind} pool {self._name!r} is open already", pool=self._name)

        client = self._make()

        try:
            await self._greet(client)
        except BaseException:
            await self._end(client)
            raise

        self._loop = asyncio.get_running_loop()
        self._client, self._closed = client, False

    async def close(self) -> None:
        """Close all connections. May be called again."""
        self._closed = True
        client, self._client = self._client, None

        if client is not None:
            await self._end(client)

    def get_client(self, *, alone: bool = False) -> AbstractAsyncContextManager[ClientT]:  # noqa: ARG002 - see below
        """
        Give the driver's client for the length of a block.

        Args:
            alone: Means nothing here: the driver takes a connection for each request by itself.

        Returns:
            An async context manager.
        """
        return self._lend()

    @abstractmethod
    def _make(self) -> ClientT:
        """Make the client, without any I/O."""

    @abstractmethod
    async def _greet(self, client: ClientT) -> None:
        """Ask the server who it is; raise UnavailableError when it cannot be used."""

    @abstractmethod
    async def _end(self, client: ClientT) -> None:
        """Close the client."""

    @asynccontextmanager
    async def _lend(self) -> AsyncIterator[ClientT]:
        yield self.client
