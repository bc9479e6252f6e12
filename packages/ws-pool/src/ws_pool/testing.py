"""What tests of code on pools need: a Redis of their own, and a database that stays as it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from ws_pool._redis.embedded import EmbeddedServer
from ws_pool._sql.manager import atomic

__all__ = ("embedded_redis", "rolled_back")


@contextmanager
def embedded_redis() -> Iterator[str]:
    """
    Start a private Valkey server for the length of a block; needs ``[embedded]``.

    It ends with this process, however that ends. Not for use inside a running event loop: there,
    `RedisPool.embedded` does the same.

    Yields:
        Its URL.

    Example:
        ```python
        import asyncio
        from ws_pool.redis import RedisPool
        from ws_pool.testing import embedded_redis


        async def visit(url: str) -> int:
            async with RedisPool(url=url) as pool:
                return await pool.redis.incr("visits")


        def test_visit() -> None:
            with embedded_redis() as url:
                assert asyncio.run(visit(url)) == 1
        ```
    """
    server = EmbeddedServer()

    # Given a factory, the runner leaves the thread's current loop alone, which may be a test plugin's.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(server.start())

    try:
        yield server.url
    finally:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(server.stop())


@asynccontextmanager
async def rolled_back(name: str = "default") -> AsyncIterator[Any]:  # Any: the client of the pool's kind
    """
    Undo at the end of a block what it does in a database.

    The block is one transaction of a pool of `sql_pool_manager`, in which all that this task does with the
    pool takes part; an inner `atomic` is a savepoint. Tasks that the block starts have connections of
    their own, which see and change the database as it is outside.

    Args:
        name: The pool's name; its manager must be started.

    Yields:
        The client of the transaction.

    Example:
        ```python
        from ws_pool import sql_pool_manager
        from ws_pool.testing import rolled_back

        sql_pool_manager.register({"default": {"url": "sqlite:///notes.db"}})

        async with sql_pool_manager:
            await sql_pool_manager.execute("CREATE TABLE notes (text TEXT)")

            async with rolled_back():
                await sql_pool_manager.insert("INSERT INTO notes VALUES ('milk')")
                assert await sql_pool_manager.count("SELECT * FROM notes") == 1

            assert await sql_pool_manager.count("SELECT * FROM notes") == 0
        ```
    """
    with suppress(_RolledBack):
        async with atomic(name) as client:
            yield client
            raise _RolledBack


class _RolledBack(Exception):
    """Ends a transaction without a commit."""
