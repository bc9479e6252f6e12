"""Where the last run of a task is noted, so that runs missed while no process was there can be made.

Two stores for the option ``run_store`` of tasks; any object with the two methods of
`ws_tasks.interface.RunStore` works.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from ws_core.errors import ConfigError
from ws_core.sources import client_getter

__all__ = ("RedisRunStore", "SqlRunStore")


class RedisRunStore:
    """
    Notes last runs in a sorted set of Redis (6.2 or newer).

    Args:
        redis: A ``redis.asyncio`` client, a pool with such a client as ``.redis``, or a manager of pools.
        key: The sorted set.

    Example:
        ```python
        from redis.asyncio import Redis
        from ws_tasks import CrontabTask, Scheduler
        from ws_tasks.stores import RedisRunStore

        async with Redis.from_url("redis://localhost:6379/0") as redis, Scheduler() as scheduler:
            store = RedisRunStore(redis)
            scheduler.add(
                CrontabTask("0 3 * * *", print, "backup", name="backup", run_store=store, catch_up="latest")
            )
        ```
    """

    def __init__(self, redis: object, *, key: str = "wst:runs") -> None:
        self._client = client_getter(redis, "zscore", "zadd")
        self._key = key

    async def last_run(self, task: str) -> float | None:
        """Return the nominal time of a task's last run, in seconds since the epoch."""
        found = await self._client().zscore(self._key, task)
        return None if found is None else float(found)

    async def note_run(self, task: str, nominal: float) -> None:
        """Note a run, unless a later one is noted."""
        await self._client().zadd(self._key, {task: nominal}, gt=True)


class SqlClient(Protocol):
    """What `SqlRunStore` needs of a pool; those of ws-pool have it."""

    @property
    def select(self) -> Callable[..., Awaitable[Sequence[Any]]]:
        """The method that returns the rows of a query with ``:name`` parameters."""
        ...

    @property
    def execute(self) -> Callable[..., Awaitable[object]]:
        """The method that runs a statement with ``:name`` parameters, and commits it."""
        ...


# The table's name is put in once it is known to be a plain one.
_CREATE = """
CREATE TABLE IF NOT EXISTS {table} (task VARCHAR(255) NOT NULL PRIMARY KEY, nominal DOUBLE PRECISION NOT NULL)
"""
_SELECT = "SELECT nominal FROM {table} WHERE task = :task"
_INSERT = "INSERT INTO {table} (task, nominal) VALUES (:task, :nominal)"
_UPDATE = "UPDATE {table} SET nominal = :nominal WHERE task = :task AND nominal < :nominal"


class SqlRunStore:
    """
    Notes last runs in a table of a SQL database, which it creates.

    Args:
        pool: A pool of ws-pool, or anything with its ``select`` and ``execute``.
        table: The table.

    Raises:
        ConfigError: The table's name is not a plain one.

    Example:
        ```python
        from ws_pool.sqlite import SqlitePool
        from ws_tasks.stores import SqlRunStore

        async with SqlitePool(url="sqlite:///:memory:") as pool:
            store = SqlRunStore(pool)
            await store.note_run("backup", 1_700_000_000.0)
            assert await store.last_run("backup") == 1_700_000_000.0
        ```
    """

    def __init__(self, pool: SqlClient, *, table: str = "ws_task_runs") -> None:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", table):
            raise ConfigError(f"table={table!r} is wrong: use letters, digits and underscores", table=table)

        self._pool = pool
        self._ready = False
        self._create, self._select, self._insert, self._update = (
            statement.replace("{table}", table) for statement in (_CREATE, _SELECT, _INSERT, _UPDATE)
        )

    async def last_run(self, task: str) -> float | None:
        """Return the nominal time of a task's last run, in seconds since the epoch."""
        await self._prepare()
        rows = await self._pool.select(self._select, task=task)
        return float(rows[0][0]) if rows else None

    async def note_run(self, task: str, nominal: float) -> None:
        """Note a run, unless a later one is noted."""
        if await self.last_run(task) is None:
            try:
                await self._pool.execute(self._insert, task=task, nominal=nominal)
            except Exception:  # of any database: another process was faster, or the insert has failed
                if await self.last_run(task) is None:
                    raise
            else:
                return

        await self._pool.execute(self._update, task=task, nominal=nominal)

    async def _prepare(self) -> None:
        if not self._ready:
            await self._pool.execute(self._create)
            self._ready = True
