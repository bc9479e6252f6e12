"""``atomic`` under its public name; it loads the SQL client only when it is used."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

if TYPE_CHECKING:
    from ws_pool._sql.atomic import Atomic
    from ws_pool._sql.pool import SqlPool

__all__ = ("atomic",)

P = ParamSpec("P")
R = TypeVar("R")


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
    from ws_pool._sql.atomic import Atomic, resolve  # noqa: PLC0415 - SQLAlchemy loads on first use

    if callable(pool):
        return Atomic(resolve("default"))(pool)

    return Atomic(
        resolve(pool),
        savepoint=savepoint,
        isolation=isolation,
        retry_deadlocks=retry_deadlocks,
        read_only=read_only,
    )
