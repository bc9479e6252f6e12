"""All SQL pools of an application by name: MySQL or SQLite, as each URL says.

Importing this module loads no SQLAlchemy, so that ``from ws_pool import atomic`` loads none either.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from ws_pool._core.extras import missing
from ws_pool._sql.atomic import Atomic
from ws_pool.base import BasePoolManager

if TYPE_CHECKING:
    from ws_pool._sql.client import Result, SqlClient, Statement
    from ws_pool._sql.pool import SqlPool

__all__ = ("SqlPoolManager", "atomic", "sql_pool_manager")

P = ParamSpec("P")
R = TypeVar("R")


class SqlPoolManager(BasePoolManager["SqlPool", "SqlClient"]):
    """
    The pools of DATABASES.

    A pool is a `SqlitePool` when its URL begins with ``sqlite``, and a `MysqlPool` otherwise. Each
    method of the client is there as a shortcut with ``pool_name``.

    Example:
        ```python
        from ws_pool import SqlPoolManager

        manager = SqlPoolManager()
        manager.register({"default": "sqlite:///:memory:"})
        async with manager:
            print(await manager.select("SELECT 1 AS one"))
        ```
    """

    settings_key = "DATABASES"

    async def execute(
        self, statement: Statement, *args: Any, pool_name: str = "default", **params: Any
    ) -> Result:
        """Run any statement; see `SqlClient.execute`."""
        return await self.get_pool(pool_name).execute(statement, *args, **params)

    async def select(
        self, statement: Statement, *args: Any, pool_name: str = "default", **params: Any
    ) -> list[Any]:
        """Run a query and give its rows; see `SqlClient.select`."""
        return await self.get_pool(pool_name).select(statement, *args, **params)

    async def find(self, statement: Statement, *args: Any, pool_name: str = "default", **params: Any) -> Any:
        """Run a query and give its first row; see `SqlClient.find`."""
        return await self.get_pool(pool_name).find(statement, *args, **params)

    async def count(self, statement: Any, *args: Any, pool_name: str = "default", **params: Any) -> int:
        """Count the rows of a query; see `SqlClient.count`."""
        return await self.get_pool(pool_name).count(statement, *args, **params)

    async def insert(self, statement: Any, *args: Any, pool_name: str = "default", **params: Any) -> int:
        """Insert a row and give its id; see `SqlClient.insert`."""
        return await self.get_pool(pool_name).insert(statement, *args, **params)

    async def update(
        self, statement: Statement, *args: Any, pool_name: str = "default", **params: Any
    ) -> int:
        """Update rows and give how many matched; see `SqlClient.update`."""
        return await self.get_pool(pool_name).update(statement, *args, **params)

    async def delete(
        self, statement: Statement, *args: Any, pool_name: str = "default", **params: Any
    ) -> int:
        """Delete rows and give how many; see `SqlClient.delete`."""
        return await self.get_pool(pool_name).delete(statement, *args, **params)

    async def insert_many(
        self, statement: Any, rows: Iterable[Mapping[str, Any]], *, pool_name: str = "default", **options: Any
    ) -> int:
        """Insert many rows; see `SqlClient.insert_many`."""
        return await self.get_pool(pool_name).insert_many(statement, rows, **options)

    def get_client(
        self,
        name: str = "default",
        alone: bool = False,  # noqa: FBT001, FBT002 - the original's signature
        *,
        read_only: bool = False,
    ) -> AbstractAsyncContextManager[SqlClient]:
        """
        Give a client of a pool for the length of a block; see `SqlPool.get_client`.

        Args:
            name: The pool's name.
            alone: Take a connection of its own even inside another block of the same task.
            read_only: Refuse changes; the client may come from a replica.

        Returns:
            An async context manager that gives the client.
        """
        return self.get_pool(name).get_client(alone=alone, read_only=read_only)

    def _build(self, name: str, section: Mapping[str, object], where: str) -> SqlPool:
        url = section.get("url")

        if "path" in section or (isinstance(url, str) and url.startswith("sqlite")):
            from ws_pool._sql.sqlite.pool import SqlitePool  # noqa: PLC0415 - drivers load on first use

            return SqlitePool._of_section(name, section, where)

        from ws_pool._sql.mysql.pool import MysqlPool  # noqa: PLC0415 - drivers load on first use

        return MysqlPool._of_section(name, section, where)


sql_pool_manager: SqlPoolManager = SqlPoolManager()
"""The application's SQL pools, registered from DATABASES."""


@overload
def atomic(pool: Callable[P, Awaitable[R]], /) -> Callable[P, Coroutine[Any, Any, R]]: ...


@overload
def atomic(
    pool: str | SqlPool = "default",
    /,
    *,
    savepoint: bool = True,
    isolation: str | None = None,
    retry_deadlocks: int = 0,
    read_only: bool = False,
) -> Atomic: ...


def atomic(
    pool: str | SqlPool | Callable[P, Awaitable[R]] = "default",
    /,
    *,
    savepoint: bool = True,
    isolation: str | None = None,
    retry_deadlocks: int = 0,
    read_only: bool = False,
) -> Atomic | Callable[P, Coroutine[Any, Any, R]]:
    """
    Run a block or a coroutine function in a transaction.

    At its end it is committed; an error or a cancellation rolls it back. Inside of it, every
    ``get_client()`` of the same task is the same client. An inner block is a savepoint.

    Args:
        pool: The name of a pool of `sql_pool_manager`, or a pool. It is looked up when the block
            begins, so that functions can be decorated before anything is configured.
        savepoint: False makes an inner block a part of the outer one.
        isolation: ``READ COMMITTED`` and so on, for the outermost block.
        retry_deadlocks: How often a decorated function is run again, with growing pauses, when the
            server reports a deadlock, a lock timeout or (SQLite) a busy database.
        read_only: Have the server refuse changes; in an inner block of one that may write, and for a
            SQLite database in memory, the client itself refuses them.

    Returns:
        An async context manager that gives the client, and a decorator for coroutine functions.

    Raises:
        CommitUnknown: From the end of the block: the connection was lost during COMMIT.

    Example:
        ```python
        from ws_pool import SqlitePool, atomic

        async with SqlitePool(url="sqlite:///:memory:") as pool:
            await pool.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER)")

            @atomic(pool, retry_deadlocks=3)
            async def open_account(balance):
                return await pool.insert("INSERT INTO account (balance) VALUES (:b)", b=balance)

            print(await open_account(100))
        ```
    """
    try:
        importlib.import_module("sqlalchemy")
    except ModuleNotFoundError as error:
        raise missing("ws_pool.atomic", error, "mysql", "sqlite") from error

    if callable(pool):
        return Atomic(_finder("default"))(pool)

    return Atomic(
        _finder(pool),
        savepoint=savepoint,
        isolation=isolation,
        retry_deadlocks=retry_deadlocks,
        read_only=read_only,
    )


def _finder(pool: str | SqlPool) -> Callable[[], SqlPool]:
    """Return a function that returns the pool: the name is looked up at each block, not before."""
    return (lambda: sql_pool_manager.get_pool(pool)) if isinstance(pool, str) else lambda: pool
