"""How connections to MySQL and MariaDB are opened, checked, reset and closed.

What they do in between is `ws_pool._sql.mysql.connection`'s.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter
from typing import Any

from ws_pool._sql.mysql.connection import AiomysqlConnection, AsyncmyConnection, MysqlConnection
from ws_pool._sql.mysql.options import Server

__all__ = ("MysqlConnection", "MysqlConnector")

_PREPARED = 64  # statements that asyncmy keeps prepared on the server, per connection
_COM_PING = 0x0E
_COM_RESET_CONNECTION = 0x1F
_FOUND_ROWS = 2  # client flag: an UPDATE counts the rows it matched, as SQLAlchemy's engine does
_TLS = 0x800  # server capability


class MysqlConnector:
    """Opens, checks and closes connections to one server."""

    def __init__(self, server: Server, *, reset_always: bool = False) -> None:
        self.server = server
        self.is_alive: Callable[[MysqlConnection], bool] = attrgetter("alive")
        self.is_clean: Callable[[MysqlConnection], bool] = _never if reset_always else attrgetter("clean")

    def __str__(self) -> str:
        return str(self.server)

    async def open(self) -> MysqlConnection:
        """Connect, authenticate, and set the session up."""
        server = self.server
        options: dict[str, Any] = {
            "host": server.host,
            "port": server.port,
            "user": await _current(server.user) or None,
            "password": await _current(server.password) or "",
            "unix_socket": server.unix_socket,
            "charset": server.charset,
            "autocommit": server.autocommit,
            "client_flag": _FOUND_ROWS,
            "ssl": server.ssl,
            "init_command": server.init_command,
            "connect_timeout": max(1.0, server.connect_timeout),
            "sql_mode": None if server.sql_mode is None else f"'{server.sql_mode}'",
        }

        conn = await (self._open_asyncmy if server.driver == "asyncmy" else self._open_aiomysql)(options)

        try:
            await conn.allow_several(False)  # so that the judgement of a text's first statement is one of all
        except BaseException:
            conn.terminate()
            raise

        return conn

    async def ping(self, conn: MysqlConnection) -> None:
        """Make sure that the server answers."""
        await conn.command(_COM_PING)

    async def reset(self, conn: MysqlConnection) -> None:
        """Make the session as new: variables, temporary tables, locks and transactions end."""
        server = self.server
        await conn.command(_COM_RESET_CONNECTION)
        conn.forget_prepared()
        await conn.run(f"SET NAMES {server.charset}", None)

        if server.sql_mode is not None:
            await conn.run(f"SET sql_mode = '{server.sql_mode}'", None)

        await conn.run(f"SET autocommit = {int(server.autocommit)}", None)

        if server.init_command is not None:
            several = ";" in server.init_command

            if several:
                await conn.allow_several(True)

            await conn.run(server.init_command, None)

            if several:
                await conn.allow_several(False)

        if server.db is not None:
            await conn.run(f"USE `{server.db.replace('`', '``')}`", None)

        conn.dirty = False

    async def close(self, conn: MysqlConnection) -> None:
        """Say goodbye and close."""
        await conn.raw.ensure_closed()

    def terminate(self, conn: MysqlConnection) -> None:
        """Close at once."""
        conn.terminate()

    async def _open_aiomysql(self, options: dict[str, Any]) -> MysqlConnection:
        driver: Any = importlib.import_module("aiomysql.connection")  # not before it is needed
        connection = driver.Connection if options["ssl"] is None else _strict(driver)
        raw = connection(db=self.server.db, **options)

        try:
            await raw._connect()
        except BaseException:
            raw.close()
            raise

        return AiomysqlConnection(raw, driver)

    async def _open_asyncmy(self, options: dict[str, Any]) -> MysqlConnection:
        driver: Any = importlib.import_module("asyncmy.connection")  # not before it is needed
        raw = driver.Connection(database=self.server.db, stmt_cache_size=_PREPARED, **options)

        try:
            await raw.connect()
        except BaseException:
            raw.close()
            raise

        return AsyncmyConnection(raw, driver)


@lru_cache(maxsize=1)
def _strict(driver: Any) -> Any:  # Any: the driver is not typed
    """Make a connection class that asks for TLS or fails; aiomysql's own goes on without it."""
    base: Any = driver.Connection

    class StrictConnection(base):  # type: ignore[misc]  # the driver is not typed
        async def _request_authentication(self) -> None:
            if not self.server_capabilities & _TLS:
                raise driver.OperationalError(
                    2026, "the server does not offer TLS, which the option ssl asks for"
                )

            await super()._request_authentication()

    return StrictConnection


def _never(conn: MysqlConnection) -> bool:  # noqa: ARG001 - the signature of is_clean
    return False


async def _current(value: Any) -> str:
    """Give a credential, asking for it when it is a callable."""
    if callable(value):
        value = value()

        if inspect.isawaitable(value):
            value = await value

    return "" if value is None else str(value)
