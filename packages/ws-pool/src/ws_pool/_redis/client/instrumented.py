"""How instrumentations of redis-py see our clients.

Tracing libraries replace `Redis.execute_command` and `Pipeline.execute` by wrappers of their own. Our
clients override both methods, so a wrapper would never be called. When redis-py's method was replaced,
a command goes through it once, on a stand-in whose connection leads back to our client.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from types import FunctionType
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.connection import ConnectionPool

_logger: Final = logging.getLogger("ws_pool.redis")


class _Retry:
    """Takes the place of redis-py's retries: our clients have their own."""

    async def call_with_retry(
        self, do: Callable[[], Awaitable[Any]], *_: object, **__: object
    ) -> Any:  # Any: a reply
        return await do()


class _StandIn:
    """Takes the place of a connection where redis-py's methods want one; nothing is sent over it."""

    host = port = None  # as of a pool whose connections lead to several servers
    db = 0
    cancelling = None
    retry = _Retry()

    def should_reconnect(self) -> bool:
        return False


STAND_IN: Final[Any] = _StandIn()  # Any: it is passed where redis-py declares a connection


def original_method() -> object:
    """Return redis-py's own `Redis.execute_command`; None when it was replaced before this import."""
    method: object = Redis.execute_command
    is_original = type(method) is FunctionType and method.__code__.co_name == "execute_command"
    return method if is_original else None


class Uninstrumented:
    """Takes the place of redis-py's `Redis` for a client whose command a wrapper has seen already."""

    @staticmethod
    def execute_command() -> None:
        """Mark the method; it is compared, and never called."""


async def observed(
    hook: Callable[[str, float, BaseException | None], object] | None,
    name: str,
    execution: Awaitable[Any],
) -> Any:
    """Execute a command or pipeline, and notify the pool's ``on_command`` of its end."""
    if hook is None:
        return await execution

    began = time.perf_counter()
    error: BaseException | None = None

    try:
        return await execution
    except BaseException as raised:
        error = raised
        raise
    finally:
        try:
            hook(name, time.perf_counter() - began, error)
        except Exception:  # a hook that fails is not the command's failure
            _logger.exception("on_command has failed over %s", name)


async def execute_instrumented(
    pool: ConnectionPool,
    execute: Callable[..., Awaitable[Any]],
    args: Sequence[Any],
    options: dict[str, Any],
) -> Any:
    """Execute a command through redis-py's method, as others have wrapped it."""
    return await Redis.execute_command(_Client(pool, execute), *args, **options)


class _Client(Redis):
    """What redis-py's method is called on: it reads the attributes of the pool, and sends nothing."""

    def __init__(self, pool: ConnectionPool, execute: Callable[..., Awaitable[Any]]) -> None:
        self.connection_pool = pool
        self.connection = STAND_IN
        self.single_connection_client = False
        self._execute = execute

    def __del__(self, *_: object) -> None:
        """Do nothing: there is no connection to close."""

    async def initialize(self) -> Redis:  # type: ignore[override]  # as redis-py declares it
        """Do nothing: there is no connection to open."""
        return self

    async def _send_command_parse_response(
        self, conn: object, command_name: object, *args: Any, **options: Any
    ) -> Any:
        """Execute the command by our client."""
        del conn, command_name  # the name is the first of args, too
        return await self._execute(*args, **options)
