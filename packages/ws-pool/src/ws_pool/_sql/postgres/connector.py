"""How connections to PostgreSQL are opened over asyncpg, checked, reset and closed."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from ws_pool._sql.options import current_credential
from ws_pool._sql.postgres.connection import PostgresConnection
from ws_pool._sql.postgres.options import Server

__all__ = ("PostgresConnection", "PostgresConnector", "connect")

# What asyncpg's own reset leaves: temporary tables, sequences' last values, and another role.
_RESET = "SET SESSION AUTHORIZATION DEFAULT; DISCARD SEQUENCES; DISCARD TEMP"
_CLOSE = 2.0  # seconds that the server has to answer a goodbye


class PostgresConnector:
    """Opens, checks and closes connections to one server; ``reset_always`` resets clean sessions too."""

    def __init__(self, server: Server, *, reset_always: bool = False) -> None:
        self.server = server
        self.is_alive: Callable[[PostgresConnection], bool] = attrgetter("alive")
        self.is_clean: Callable[[PostgresConnection], bool] = _never if reset_always else attrgetter("clean")

    def __str__(self) -> str:
        return str(self.server)

    async def open(self) -> PostgresConnection:
        """Connect, authenticate, and set the session up."""
        driver: Any = importlib.import_module("asyncpg")  # not before it is needed
        return PostgresConnection(await connect(self.server, driver), driver)

    async def ping(self, conn: PostgresConnection) -> None:
        """Make sure that the server answers."""
        # Not ";" alone: asyncpg cannot read the reply to that on a new connection.
        await conn.raw.execute("SELECT 1")

    async def reset(self, conn: PostgresConnection) -> None:
        """
        Make the session as new: settings, temporary tables, locks, cursors and transactions end.

        A statement that was cancelled is waited for first, until the server has let go of it.
        """
        raw = conn.raw

        # Twice when a BEGIN was cancelled: that a transaction is open is known after the first exchange, and
        # what was reset inside of it would come back with its end.
        while True:
            if raw.is_in_transaction():  # asyncpg's own reset would log an error
                await raw.execute("ROLLBACK")

            await raw.reset()
            await raw.execute(_RESET)

            if not raw.is_in_transaction():
                break

        conn.forget()

    async def close(self, conn: PostgresConnection) -> None:
        """Say goodbye and close."""
        await conn.raw.close(timeout=_CLOSE)

    def terminate(self, conn: PostgresConnection) -> None:
        """Close at once."""
        conn.terminate()


async def connect(server: Server, driver: Any) -> Any:  # Any: asyncpg is loaded on use
    """Open a connection of asyncpg, which reads and writes JSON as SQLAlchemy's engine has it."""
    raw = await driver.connect(
        host=list(server.hosts) or server.host,
        port=server.port,
        user=await current_credential(server.user) or None,
        password=server.password,
        database=server.db,
        ssl=server.ssl,
        passfile=server.passfile,
        timeout=server.connect_timeout,
        server_settings={"application_name": server.application_name, **server.server_settings},
        target_session_attrs=server.target_session_attrs,
        # Without, each statement is parsed anew and unnamed, which a pooler in transaction mode needs.
        statement_cache_size=server.statement_cache_size if server.prepared else 0,
    )

    try:
        for name, prefix in (("json", b""), ("jsonb", b"\x01")):
            await raw.set_type_codec(
                name,
                schema="pg_catalog",
                format="binary",
                encoder=_encoder(prefix),
                decoder=_decoder(len(prefix)),
            )
    except BaseException:
        raw.terminate()
        raise

    return raw


def _encoder(prefix: bytes) -> Callable[[str], bytes]:
    """Return what writes JSON that SQLAlchemy's type has made text; jsonb begins with its version."""
    return lambda value: prefix + value.encode()


def _decoder(length: int) -> Callable[[bytes], Any]:
    return lambda value: json.loads(value[length:])


def _never(conn: PostgresConnection) -> bool:
    return False
