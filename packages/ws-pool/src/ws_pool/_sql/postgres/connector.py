"""How connections to PostgreSQL are opened, checked, reset and closed, over either driver."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from ws_pool._sql.postgres.connection import PostgresConnection
from ws_pool._sql.postgres.options import Server


def module_of(server: Server) -> Any:  # Any: a module, which imports its driver
    """Return the module of a server's driver; it is loaded on use."""
    return importlib.import_module(f"ws_pool._sql.postgres.{server.driver}_connection")


class PostgresConnector:
    """Opens, checks and closes connections to one server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.is_alive: Callable[[PostgresConnection], bool] = attrgetter("alive")
        self.is_clean: Callable[[PostgresConnection], bool] = attrgetter("clean")

    def __str__(self) -> str:
        return str(self.server)

    async def open(self) -> PostgresConnection:
        """Connect, authenticate, and set the session up."""
        conn: PostgresConnection = await module_of(self.server).open_connection(self.server)
        return conn

    async def ping(self, conn: PostgresConnection) -> None:
        """Make sure that the server answers."""
        await conn.ping()

    async def reset(self, conn: PostgresConnection) -> None:
        """Make the session as new."""
        await conn.make_new()

    async def close(self, conn: PostgresConnection) -> None:
        """End the session and close."""
        await conn.close()

    def terminate(self, conn: PostgresConnection) -> None:
        """Close at once."""
        conn.terminate()
