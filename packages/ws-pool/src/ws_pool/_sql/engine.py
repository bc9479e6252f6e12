"""A SQLAlchemy `AsyncEngine` over a pool's connections, for the ORM and for all that the client leaves out.

The engine keeps no connections of its own: each of its sessions holds a lease of the pool, so that
both together stay within the pool's limit. The dialect that it initialises, from the server's
version and modes, is the one that the client compiles for.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.pool import NullPool

from ws_pool.errors import MissingExtraError


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What SQLAlchemy's engines over one pool are made of."""

    url: str
    """It only names the dialect and the driver."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Those of every engine."""
    learn: Mapping[str, Any] = field(default_factory=dict)
    """Those of the engine whose dialect the client compiles for."""
    joined: Mapping[str, Any] = field(default_factory=dict)
    """Those of the engine that works inside the transactions of clients, beside those of every engine."""


class PooledDriverConnection:
    """
    A driver's connection whose closing releases it to the pool.

    ``release`` is called once, with whether the connection must not be used again.
    """

    def __init__(self, raw: Any, release: Callable[[bool], None]) -> None:  # Any: the drivers are not typed
        # Not by assignment, which sets the attributes of the driver's connection.
        object.__setattr__(self, "_raw", raw)
        object.__setattr__(self, "_release", release)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._raw, name, value)

    async def ensure_closed(self) -> None:
        """Release the connection: what MySQL drivers call closing."""
        self._return(discard=False)

    def close(self) -> Any:
        """Release the connection, unfit for use: what MySQL drivers call terminating."""
        self._return(discard=True)

    def _return(self, *, discard: bool) -> None:
        release = self._release
        object.__setattr__(self, "_release", None)

        if release is not None:
            release(discard)


class Joined:
    """A part of connections that SQLAlchemy uses inside a transaction which is not its own to end."""

    async def commit(self) -> None:
        """Do nothing: the client's transaction ends with the client's block."""

    async def rollback(self) -> None:
        """Do nothing, as `commit`."""


class JoinedDriverConnection(Joined, PooledDriverConnection):
    """A connection inside a client's transaction."""


class PooledAsyncConnection(PooledDriverConnection):
    """The same for drivers whose ``close`` is a coroutine and releases, and whose terminating is not."""

    async def close(self, *, timeout: float | None = None) -> None:
        """Release the connection."""
        self._return(discard=False)

    def terminate(self) -> None:
        """Release the connection, unfit for use."""
        self._return(discard=True)

    stop = terminate  # as aiosqlite calls it


class PooledSqliteConnection(PooledAsyncConnection):
    """
    The same for aiosqlite.

    ``cursors`` collects those that were opened: a session that was cancelled closes none, and an open
    one keeps the next session from defining its functions.
    """

    def __init__(self, raw: Any, release: Callable[[bool], None], cursors: list[Any]) -> None:
        super().__init__(raw, release)
        object.__setattr__(self, "_cursors", cursors)

    def cursor(self) -> Any:
        """Open a cursor: to be awaited, or entered."""
        return _Opening(self._raw.cursor(), self._cursors)


class JoinedSqliteConnection(Joined, PooledSqliteConnection):
    """A connection inside a client's transaction."""


class _Opening:
    """What aiosqlite's ``cursor()`` returns, noting the cursor that it opens."""

    def __init__(self, opening: Any, cursors: list[Any]) -> None:
        self._opening = opening
        self._cursors = cursors
        self._cursor: Any = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Any:
        self._cursor = await self._opening
        self._cursors.append(self._cursor)
        return self._cursor

    async def __aexit__(self, *_: object) -> None:
        await self._cursor.close()


def make_engine(url: str, acquire: Callable[[], Awaitable[Any]], **options: Any) -> Any:
    """
    Make an `AsyncEngine` whose connections are those that ``acquire`` returns.

    They are wrapped in `PooledDriverConnection`; the URL only names the dialect and driver.
    """
    need_greenlet()
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - it needs greenlet, which was just checked

    async def creator(*_: object, **__: object) -> Any:
        return await acquire()

    return create_async_engine(url, async_creator=creator, poolclass=NullPool, **options)


def need_greenlet() -> None:
    """Raise an error when greenlet is missing."""
    if importlib.util.find_spec("greenlet") is None:
        message = "engine() and orm_session() need greenlet: pip install 'sqlalchemy[asyncio]'"
        raise MissingExtraError(message)
