"""How connections to MySQL and MariaDB are opened, checked, reset and closed.

What they do in between is `ws_pool._sql.mysql.connection`'s.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter
from typing import Any

from ws_pool._sql.mysql.connection import AiomysqlConnection, AsyncmyConnection, MysqlConnection
from ws_pool._sql.mysql.options import Server
from ws_pool._sql.mysql.stopper import StatementStopper, Victim
from ws_pool._sql.options import EXTRAS, current_credential
from ws_pool.errors import MissingExtraError

_PREPARED = 64  # statements that asyncmy keeps prepared on the server, per connection
_COM_PING = 0x0E
_COM_RESET_CONNECTION = 0x1F
_LOCAL_FILES = 0x80  # client flag
_FOUND_ROWS = 2  # client flag: an UPDATE counts the rows it matched, as SQLAlchemy's engine does
_AUTOCOMMIT = 2  # server status
_TLS, _DEPRECATE_EOF = 0x800, 0x1000000  # server capabilities


class MysqlConnector:
    """Opens, checks and closes connections to one server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.stopper = StatementStopper(self._connect, max(1.0, server.connect_timeout))
        self.is_alive: Callable[[MysqlConnection], bool] = attrgetter("alive")
        self.is_clean: Callable[[MysqlConnection], bool] = attrgetter("clean")

    def __str__(self) -> str:
        return str(self.server)

    async def open(self) -> MysqlConnection:
        """Connect, authenticate, and set the session up."""
        conn = await self._connect()
        conn.stop = self._stop
        conn.local_infile = self.server.local_infile
        return conn

    def _stop(self, conn: MysqlConnection) -> None:
        """Have the server stop what a connection was cut short in."""
        port = conn.port

        if port:
            self.stopper.stop(Victim(conn.raw.thread_id(), port))

    async def _connect(self) -> MysqlConnection:
        server = self.server
        options: dict[str, Any] = {
            "host": server.host,
            "port": server.port,
            "user": await current_credential(server.user) or None,
            "password": _sent(await current_credential(server.password) or "", server.charset),
            "unix_socket": server.unix_socket,
            "charset": server.charset,
            "autocommit": server.autocommit,
            # Not the drivers' own option: with it they send whatever file the server names, at any time.
            "client_flag": _FOUND_ROWS | (_LOCAL_FILES if server.local_infile else 0),
            "ssl": server.ssl,
            "init_command": server.init_command,
            "connect_timeout": max(1.0, server.connect_timeout),
            "sql_mode": None if server.sql_mode is None else f"'{server.sql_mode}'",
        }

        try:
            conn = await (self._open_asyncmy if server.driver == "asyncmy" else self._open_aiomysql)(options)
        except RuntimeError as error:
            if "cryptography" not in str(error):
                raise

            message = (
                "the server asks for an encrypted password (caching_sha2_password or sha256_password), which "
                f"needs cryptography: pip install 'ws-pool[{EXTRAS[server.driver]}]', or connect with ssl"
            )
            raise MissingExtraError(message, requirement="cryptography") from error

        try:
            # Then the judgement of a text's first statement is one of the whole text.
            await conn.allow_several(allowed=False)
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
                await conn.allow_several(allowed=True)

            await conn.run(server.init_command, None)

            if several:
                await conn.allow_several(allowed=False)

        if server.db is not None:
            await conn.run(f"USE `{server.db.replace('`', '``')}`", None)

        conn.dirty = False

    async def close(self, conn: MysqlConnection) -> None:
        """End the session and close."""
        await conn.raw.ensure_closed()

    def terminate(self, conn: MysqlConnection) -> None:
        """Close at once."""
        conn.terminate()

    async def _open_aiomysql(self, options: dict[str, Any]) -> MysqlConnection:
        driver: Any = importlib.import_module("aiomysql.connection")  # not before it is needed
        raw = _aiomysql_class(driver, strict=options["ssl"] is not None)(db=self.server.db, **options)

        try:
            await raw._connect()
        except BaseException:
            raw.close()
            raise

        return AiomysqlConnection(raw, driver)

    async def _open_asyncmy(self, options: dict[str, Any]) -> MysqlConnection:
        driver: Any = importlib.import_module("asyncmy.connection")  # not before it is needed
        # Of the driver's own class: a subclass loses its short ways to write and to read.
        raw = driver.Connection(database=self.server.db, stmt_cache_size=_PREPARED, **options)
        handshake = raw._get_server_information

        async def without_deprecate_eof() -> None:
            await handshake()

            # With this capability asyncmy 0.2 takes a row that begins with a value of 16 MiB or more for
            # the end of the result: it drops the row, and reads the rest as the next statement's.
            raw.server_capabilities &= ~_DEPRECATE_EOF
            del raw._get_server_information  # once: the cycle of references ends

        raw._get_server_information = without_deprecate_eof

        try:
            await raw.connect()
        except BaseException:
            raw.close()
            raise

        if not self.server.autocommit:
            raw.server_status &= ~_AUTOCOMMIT  # the driver skips a status of 0

        return AsyncmyConnection(raw, driver)


@lru_cache(maxsize=2)
def _aiomysql_class(driver: Any, *, strict: bool) -> Any:  # Any: the driver is not typed
    """Make a class of connections that write bytes, and (strict) use TLS or fail."""
    base: Any = driver.Connection

    class Connection(base):  # type: ignore[misc]  # the driver is not typed
        def escape(self, obj: Any) -> str:
            # aiomysql 0.3 calls what PyMySQL 1.2.3 has taken away; the engine writes values with it.
            if isinstance(obj, bytes | bytearray | memoryview):
                return f"_binary X'{obj.hex()}'"

            return str(super().escape(obj))

        async def _request_authentication(self) -> None:
            if strict and not self.server_capabilities & _TLS:  # aiomysql goes on without it
                raise driver.OperationalError(
                    2026, "the server does not offer TLS, which the option ssl asks for"
                )

            await super()._request_authentication()

    return Connection


def _sent(password: str, charset: str) -> str:
    """
    Return a password that a driver sends as the bytes that it has in the connection's character set.

    Both drivers write passwords in latin1, whatever the connection's character set is. The server knows
    the bytes that it was given with CREATE USER, which are UTF-8 nearly everywhere.
    """
    return password if charset == "latin1" else password.encode().decode("latin1")
