"""All SQL pools of an application by name: MySQL, PostgreSQL or SQLite, as each URL says.

Importing this module loads no SQLAlchemy, so that ``from ws_pool import atomic`` loads none either.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, overload

from ws_core.redaction import mask_url
from ws_pool._core.extras import missing
from ws_pool._sql.atomic import Atomic
from ws_pool._sql.verbs import SqlVerbs
from ws_pool.base import BasePoolManager
from ws_pool.errors import ConfigError

if TYPE_CHECKING:
    from ws_pool._sql.client import SqlClient
    from ws_pool._sql.pool import ClientT_co, SqlPool


P = ParamSpec("P")
R = TypeVar("R")

_MYSQL, _POSTGRES, _SQLITE = ("mysql", "MysqlPool"), ("postgres", "PostgresPool"), ("sqlite", "SqlitePool")
_POOLS: Final = {
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    "postgres": _POSTGRES,
    "postgresql": _POSTGRES,
    "sqlite": _SQLITE,
}
"""Scheme of a URL → the dialect's folder, and its pool; mysql is the one that needs no scheme."""


class SqlPoolManager(SqlVerbs, BasePoolManager["SqlPool", "SqlClient"]):
    """
    The pools of DATABASES.

    A pool is a `SqlitePool` when its URL begins with ``sqlite``, a `PostgresPool` when it begins with
    ``postgresql`` or ``postgres``, and a `MysqlPool` otherwise. The client's verbs for one
    statement are here too, with ``pool_name=`` (``"default"``) beside their parameters.

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

    def get_client(
        self,
        name: str = "default",
        alone: bool = False,  # noqa: FBT001, FBT002 - the original's signature
        *,
        read_only: bool = False,
        schema_translate_map: Mapping[str | None, str | None] | None = None,
    ) -> AbstractAsyncContextManager[SqlClient]:
        """Return a client of a pool for the length of a block; see `MysqlPool.get_client`."""
        return self.get_pool(name).get_client(
            alone=alone, read_only=read_only, schema_translate_map=schema_translate_map
        )

    def _client_for(self, params: dict[str, Any]) -> AbstractAsyncContextManager[SqlClient]:
        return self.get_client(params.pop("pool_name", "default"))

    def _build(self, name: str, section: Mapping[str, object], where: str) -> SqlPool:
        url = section.get("url")
        scheme, is_url = "mysql", True

        if isinstance(url, str):
            scheme, is_url = url.partition(":")[0].partition("+")[0], "://" in url

        found = _SQLITE if "path" in section else _POOLS.get(scheme)

        if found is None or not is_url:
            given = f"{scheme}://" if is_url else repr(mask_url(str(url)))
            message = (
                f"{where}.url must begin with mysql://, mariadb://, postgresql://, postgres:// or sqlite://, "
                f"not {given}"
            )
            raise ConfigError(message, setting=f"{where}.url")

        # By name, since a driver loads on first use, and so does SQLAlchemy.
        folder, kind = found
        pool: type[SqlPool] = getattr(importlib.import_module(f"ws_pool._sql.{folder}.pool"), kind)
        return pool.of_section(name, section, where)


sql_pool_manager: SqlPoolManager = SqlPoolManager()
"""The application's SQL pools, registered from DATABASES."""


@overload
def atomic(pool: Callable[P, Awaitable[R]], /) -> Callable[P, Coroutine[Any, Any, R]]: ...


@overload
def atomic(
    pool: str = "default",
    /,
    *,
    savepoint: bool = True,
    isolation: str | None = None,
    retry_deadlocks: int = 0,
    read_only: bool = False,
) -> Atomic[SqlClient]: ...


@overload
def atomic(
    pool: SqlPool[ClientT_co],
    /,
    *,
    savepoint: bool = True,
    isolation: str | None = None,
    retry_deadlocks: int = 0,
    read_only: bool = False,
) -> Atomic[ClientT_co]: ...


def atomic(
    pool: str | SqlPool | Callable[P, Awaitable[R]] = "default",
    /,
    *,
    savepoint: bool = True,
    isolation: str | None = None,
    retry_deadlocks: int = 0,
    read_only: bool = False,
) -> Atomic[Any] | Callable[P, Coroutine[Any, Any, R]]:
    """
    Run a block or a coroutine function in a transaction.

    At its end it is committed; an error or a cancellation rolls it back. Inside of it, every
    ``get_client()`` of the same task is the same client. An inner block is a savepoint.

    ``pool`` is the name of a pool of `sql_pool_manager`, or a pool. It is looked up when the block
    begins, so that functions can be decorated before anything is configured. ``isolation`` is
    ``READ COMMITTED`` and so on, for the outermost block: an inner one may ask for the same, and any other
    is an error; ``savepoint=False`` makes an inner block a part of the outer one. A decorated function is
    run again up to ``retry_deadlocks`` times, with growing pauses, when the server reports a deadlock, a lock
    timeout or (SQLite) a busy database. With ``read_only`` the server refuses changes; in an inner block
    of one that may write, and for a SQLite database in memory, the client itself does.

    `CommitUnknown` from the end of the block means that the connection was lost during COMMIT.

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
