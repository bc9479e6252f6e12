"""The lifecycle of a driver's client that all tasks of a loop share: made at the start, shared, closed."""

from __future__ import annotations

import asyncio
import warnings
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar, Generic, TypeVar

from ws_pool._core.config import pool_name
from ws_pool._core.startable import Startable
from ws_pool.errors import ClosedError, NotReadyError, UsageError

ClientT = TypeVar("ClientT")


class SharedClient(Startable, Generic[ClientT]):
    """
    A pool whose driver pools connections by itself: it holds one client.

    A subclass makes the client, checks that a server answers it, and closes it. ``setting`` begins the
    names of options in errors, ``shown`` is the server's address without secrets.
    """

    _kind: ClassVar[str]

    def __init__(self, name: str, setting: str, shown: str) -> None:
        self._name = pool_name(name, setting)
        self._shown = shown
        self._client: ClientT | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "new" if self._client is None else "ready"
        return f"<{type(self).__name__} {self._name!r} {state}: {self._shown}>"

    def __del__(self) -> None:
        if getattr(self, "_client", None) is not None:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=2, source=self)

    @property
    def name(self) -> str:
        """The pool's name."""
        return self._name

    @property
    def client(self) -> ClientT:
        """The driver's client, which all tasks share; a `UsageError` when the pool cannot be used here."""
        client = self._client

        if client is None:
            if self._closed:
                message = f"{self._kind} pool {self._name!r} is closed: make a new one"
                raise ClosedError(message, pool=self._name)

            message = f"{self._kind} pool {self._name!r} is not started: enter it with `async with`"
            raise NotReadyError(message, pool=self._name)

        if asyncio.get_running_loop() is not self._loop:
            message = f"{self._kind} pool {self._name!r} belongs to another event loop: make one in this loop"
            raise UsageError(message, pool=self._name)

        return client

    async def start(self) -> None:
        """Make the client and check that the right server answers; on an error nothing is left behind."""
        if self._client is not None:
            raise UsageError(f"{self._kind} pool {self._name!r} is open already", pool=self._name)

        client = self._make()

        try:
            await self._check_server(client)
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

    def get_client(self, *, alone: bool = False) -> AbstractAsyncContextManager[ClientT]:
        """Return a context manager of the client; ``alone`` has no meaning, as the driver pools by itself."""
        return self._block()

    @abstractmethod
    def _make(self) -> ClientT:
        """Make the client, without any I/O."""

    @abstractmethod
    async def _check_server(self, client: ClientT) -> None:
        """Check that the server answers; raise UnavailableError when it cannot be used."""

    @abstractmethod
    async def _end(self, client: ClientT) -> None:
        """Close the client."""

    @asynccontextmanager
    async def _block(self) -> AsyncIterator[ClientT]:
        yield self.client
