"""All SQL pools of an application by name: MySQL or SQLite, as each URL says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from ws_pool._sql.client import Result, SqlClient, Statement
from ws_pool._sql.pool import SqlPool
from ws_pool.base import BasePoolManager

__all__ = ("SqlPoolManager", "sql_pool_manager")


class SqlPoolManager(BasePoolManager[SqlPool, SqlClient]):
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
            from ws_pool.sqlite import SqlitePool  # noqa: PLC0415 - drivers load on first use

            return SqlitePool._of_section(name, section, where)

        from ws_pool.mysql import MysqlPool  # noqa: PLC0415 - drivers load on first use

        return MysqlPool._of_section(name, section, where)


sql_pool_manager: SqlPoolManager = SqlPoolManager()
"""The application's SQL pools, registered from DATABASES."""
