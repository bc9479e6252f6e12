"""SQL pools, clients and transactions as in 1.x, over those of `ws_pool`."""

from __future__ import annotations

import functools
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Final
from weakref import WeakValueDictionary

from sqlalchemy.sql import ClauseElement, Delete, Insert, Select, Update

import ws_pool
from wintersweet._eager import begin
from wintersweet.asyncs.pool.base import BasePool, BasePoolManager
from wintersweet.asyncs.pool.context import ClientContext
from ws_pool.base import BasePoolManager as LibraryManager
from ws_pool.mysql import MysqlPool as LibraryPool
from ws_pool.mysql import SqlClient, sql_pool_manager

__all__ = ("MysqlClient", "MysqlPool", "MysqlPoolManager", "ResultProxy", "atomic", "mysql_pool_manager")

# Any below: statements, values and rows, as in the library.

_COUNT: Final = "tbl_row_count"
"""The column that `count` of 1.x wanted; a statement without it is counted by the library."""

# MySQL's escapes of string literals: https://dev.mysql.com/doc/refman/8.4/en/string-literals.html
_ESCAPES: Final = str.maketrans(
    {"\0": "\\0", "\n": "\\n", "\r": "\\r", "\x1a": "\\Z", "\\": "\\\\", '"': '\\"', "'": "\\'"}
)


class ResultProxy:
    """What `MysqlClient.execute` returns: its rows are here already, so nothing has to be closed."""

    def __init__(self, result: Any) -> None:
        self.rows: list[Any] = result.rows
        self.rowcount: int = result.rowcount
        self.lastrowid: int = result.last_id
        self.last_id: int = result.last_id
        self.closed: bool = False
        self._left: Iterator[Any] = iter(self.rows)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._iterate()

    @property
    def cursor(self) -> ResultProxy:
        """What stood for the driver's cursor; it has the same methods."""
        return self

    @property
    def returns_rows(self) -> bool:
        """Whether there are rows."""
        return bool(self.rows)

    async def fetchone(self) -> Any:
        """Return the next row, or None."""
        return next(self._left, None)

    async def fetchmany(self, size: int = 1) -> list[Any]:
        """Return the next rows, at most ``size``."""
        return list(itertools.islice(self._left, size))

    async def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        return list(self._left)

    async def first(self) -> Any:
        """Return the first row, or None."""
        return self.rows[0] if self.rows else None

    async def scalar(self) -> Any:
        """Return the first value of the first row, or None."""
        row = await self.first()
        return None if row is None else next(iter(row.values() if isinstance(row, dict) else row))

    async def close(self) -> None:
        """Drop the rows that are left."""
        self.closed = True
        self._left = iter(())

    async def _iterate(self) -> AsyncIterator[Any]:
        for row in self._left:
            yield row


class _Beginning:
    """What ``client.begin()`` returns: awaited, or for the length of a block."""

    def __init__(self, transaction: Any) -> None:
        self._transaction = transaction

    def __await__(self) -> Generator[Any, Any, Any]:
        begun: Generator[Any, Any, Any] = self._transaction.__aenter__().__await__()
        return begun

    async def __aenter__(self) -> Any:
        return await self._transaction.__aenter__()

    async def __aexit__(self, *error: object) -> Any:
        return await self._transaction.__aexit__(*error)


class MysqlClient:
    """A client of a SQL pool with the methods of 1.x; what is missing here is the library client's."""

    def __init__(
        self, client: SqlClient, block: AbstractAsyncContextManager[SqlClient] | None = None
    ) -> None:
        self._client = client
        self._block = block  # None once it is given back, and in a block inside of another one
        self._closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def __repr__(self) -> str:
        return repr(self._client)

    @staticmethod
    def safestr(val: Any) -> Any:
        """Escape text for a string literal; other values become text. Parameters need no such thing."""
        if isinstance(val, dict):
            return {key: MysqlClient.safestr(value) for key, value in val.items()}

        return val.translate(_ESCAPES) if isinstance(val, str) else str(val)

    @property
    def conn(self) -> Any:
        """The driver's connection."""
        return self._client.raw

    @property
    def closed(self) -> bool:
        """Whether the client was given back."""
        return self._closed

    def close(self) -> Awaitable[None]:
        """Release the connection to its pool. It begins at once."""
        return begin(self._close(), "closing a client")

    async def _close(self) -> None:
        block, self._block = self._block, None
        self._closed = True

        if block is not None:
            await block.__aexit__(None, None, None)

    def begin(self, **options: Any) -> _Beginning:
        """Open a transaction: ``async with client.begin():``, or ``await`` it and ``commit()``."""
        return _Beginning(self._client.begin(**options))

    async def execute(self, query: Any, *multiparams: Any, **params: Any) -> ResultProxy:
        """Run any statement."""
        return ResultProxy(await self._client.execute(query, *multiparams, **params))

    async def select(self, query: Any, *multiparams: Any, **params: Any) -> list[Any]:
        """Run a query and return its rows."""
        _check(query, Select)
        rows: list[Any] = await self._client.select(query, *multiparams, **params)
        return rows

    async def find(self, query: Any, *multiparams: Any, **params: Any) -> Any:
        """Run a query and return its first row, or None."""
        _check(query, Select)
        return await self._client.find(query, *multiparams, **params)

    async def count(self, query: Any, *multiparams: Any, **params: Any) -> int:
        """Count the rows of a query; one that counts in a column ``tbl_row_count`` is read."""
        if isinstance(query, Select) and _COUNT in query.selected_columns:
            row = await self._client.find(query, *multiparams, row_type=dict, **params)
            return 0 if row is None else int(row[_COUNT])

        return await self._client.count(query, *multiparams, **params)

    async def insert(self, query: Any, *multiparams: Any, **params: Any) -> int:
        """Insert, and return the generated key."""
        _check(query, Insert)
        return await self._client.insert(query, *multiparams, **params)

    async def update(self, query: Any, *multiparams: Any, **params: Any) -> int:
        """Update, and return how many rows matched."""
        _check(query, Update)
        return await self._client.update(query, *multiparams, **params)

    async def delete(self, query: Any, *multiparams: Any, **params: Any) -> int:
        """Delete, and return how many rows are gone."""
        _check(query, Delete)
        return await self._client.delete(query, *multiparams, **params)


def _check(query: Any, kind: type[ClauseElement]) -> None:
    """Refuse a statement of another kind before it runs; text and prepared handles are taken."""
    if isinstance(query, Select | Insert | Update | Delete) and not isinstance(query, kind):
        message = f"not a {kind.__name__} but a {type(query).__name__}: use the method of that name"
        raise TypeError(message)


class MysqlPool(BasePool):
    """A SQL pool with the methods of 1.x, made from the same options; what is missing is the library's."""

    _started: bool

    def __init__(
        self,
        minsize: int = 1,
        maxsize: int = 10,
        echo: bool = False,
        pool_recycle: float = -1,
        loop: object = None,
        **kwargs: Any,
    ) -> None:
        kwargs.update(minsize=minsize, maxsize=maxsize, echo=echo, pool_recycle=pool_recycle)
        self._take_over(LibraryPool(**kwargs), started=False)

    @property
    def minsize(self) -> int:
        """Connections kept open."""
        return int(self.library.statistics().min_size)

    @property
    def maxsize(self) -> int:
        """Most connections at once."""
        return int(self.library.statistics().max_size)

    @property
    def size(self) -> int:
        """Connections that are open."""
        return int(self.library.statistics().size)

    @property
    def freesize(self) -> int:
        """Connections that are open and idle."""
        return int(self.library.statistics().idle)

    def get_client(self, alone: bool = False) -> ClientContext[MysqlClient]:
        """Take a client: ``client = await pool.get_client()`` and ``await client.close()``, or a block."""
        return ClientContext(self._take, alone=alone)

    get_context_manager_client = get_client

    def get_context_client(self) -> MysqlClient | None:
        """Return the client of the block that the task is in, if any."""
        client = self.library.bound.current()
        return None if client is None else self._wrapped(client, None)

    async def init_fill_free_pool(self) -> None:
        """Start the pool, which opens its first connections."""
        if not self._started:
            await self.library.start()
            self._started = True

    def _take_over(self, library: Any, *, started: bool) -> None:
        super()._take_over(library, started=started)
        self._started = started
        self._clients: WeakValueDictionary[int, MysqlClient] = WeakValueDictionary()

    async def _take(self, alone: bool) -> tuple[MysqlClient, Callable[[], Awaitable[None]] | None]:
        block = self.library.get_client(alone=alone)
        client = await block.__aenter__()

        if client is not block:  # that of an outer block, which gives it back
            return self._wrapped(client, None), None

        mine = self._wrapped(client, block)
        return mine, mine._close

    def _wrapped(self, client: SqlClient, block: Any) -> MysqlClient:
        """Return the one client of 1.x for a client of the library, so that nested blocks have the same."""
        found = self._clients.get(id(client))

        if found is None or found.closed:
            found = self._clients[id(client)] = MysqlClient(client, block)

        return found


class MysqlPoolManager(BasePoolManager):
    """The SQL pools of DATABASES, with the verbs of a client."""

    library: ClassVar[LibraryManager[Any, Any]] = sql_pool_manager

    def get_pool(self, pool_name: str = "default") -> MysqlPool:
        """Return a started pool by its name."""
        return MysqlPool.of(self.library.get_pool(pool_name))

    def pool_status(self, pool_name: str = "default") -> str:
        """Describe a pool in one line of text; ``statistics()`` of the pool has the numbers."""
        pool = self.get_pool(pool_name)
        where = str(pool.library)
        return f"<[{pool_name}] {where} [size:[{pool.minsize}:{pool.maxsize}], free:{pool.freesize}]>"

    async def execute(
        self, query: Any, *multiparams: Any, pool_name: str = "default", **params: Any
    ) -> ResultProxy:
        """Run any statement on a pool."""
        async with self.get_client(pool_name) as client:
            result: ResultProxy = await client.execute(query, *multiparams, **params)
            return result

    async def select(self, sql: Any, *args: Any, pool_name: str = "default", **kwargs: Any) -> list[Any]:
        """Run a query on a pool and return its rows."""
        async with self.get_client(pool_name) as client:
            rows: list[Any] = await client.select(sql, *args, **kwargs)
            return rows

    async def find(self, sql: Any, *args: Any, pool_name: str = "default", **kwargs: Any) -> Any:
        """Run a query on a pool and return its first row, or None."""
        async with self.get_client(pool_name) as client:
            return await client.find(sql, *args, **kwargs)

    async def count(self, sql: Any, *args: Any, pool_name: str = "default", **kwargs: Any) -> int:
        """Count on a pool; see `MysqlClient.count`."""
        async with self.get_client(pool_name) as client:
            return int(await client.count(sql, *args, **kwargs))

    async def insert(self, sql: Any, *args: Any, pool_name: str = "default", **kwargs: Any) -> int:
        """Insert on a pool, and return the generated key."""
        async with self.get_client(pool_name) as client:
            return int(await client.insert(sql, *args, **kwargs))

    async def update(self, sql: Any, *args: Any, pool_name: str = "default", **kwargs: Any) -> int:
        """Update on a pool, and return how many rows matched."""
        async with self.get_client(pool_name) as client:
            return int(await client.update(sql, *args, **kwargs))

    async def delete(self, sql: Any, *args: Any, pool_name: str = "default", **kwargs: Any) -> int:
        """Delete on a pool, and return how many rows are gone."""
        async with self.get_client(pool_name) as client:
            return int(await client.delete(sql, *args, **kwargs))


mysql_pool_manager: Final = MysqlPoolManager()
"""The application's SQL pools."""


class _Atomic:
    """A transaction as a block, or around a coroutine function, which starts the pools when needed."""

    def __init__(self, pool: Any, options: dict[str, Any]) -> None:
        self._library = ws_pool.atomic(pool, **options)

    def __call__(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        inner = self._library(function)

        @functools.wraps(function)
        async def run(*args: Any, **kwargs: Any) -> Any:
            await mysql_pool_manager
            return await inner(*args, **kwargs)

        return run

    async def __aenter__(self) -> Any:
        return await self._library.__aenter__()

    async def __aexit__(self, *error: object) -> Any:
        return await self._library.__aexit__(*error)


def atomic(pool_name: Any = "default", **options: Any) -> Any:
    """
    Run a coroutine function, or a block, in a transaction.

    Args:
        pool_name: The pool's name, or the function itself (``@atomic``).
        **options: Those of `ws_pool.atomic`.

    Returns:
        A decorator that is a block too, or the decorated function.

    Example:
        ```python
        from wintersweet.asyncs.pool.mysql import atomic, mysql_pool_manager

        @atomic("default")
        async def add(name):
            await mysql_pool_manager.execute("INSERT INTO users (name) VALUES (:name)", name=name)
        ```
    """
    return _Atomic("default", options)(pool_name) if callable(pool_name) else _Atomic(pool_name, options)
