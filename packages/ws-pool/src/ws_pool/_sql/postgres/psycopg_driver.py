"""Connections of psycopg 3: how they are opened, and how a cancelled exchange on one is ended."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.pq import ConnStatus, PipelineStatus, TransactionStatus
from psycopg.waiting import wait_async

from ws_pool._sql.options import current_credential
from ws_pool._sql.postgres.options import Server

_STOP: Final = 1.0  # seconds that the server has to stop a statement; then it is asked again
_ATTEMPTS: Final = 5
_INTERVAL: Final = 0.1  # seconds after which the driver looks whether the connection is still there
_BUSY: Final = TransactionStatus.ACTIVE
# libpq has no SQLSTATE for a connect that fails, only the server's words.
_REFUSALS: Final = (
    (r"password authentication failed", "28P01"),
    (r"no pg_hba\.conf entry|authentication failed|no password supplied|role .* does not exist", "28000"),
    (r"database .* does not exist", "3D000"),
    (r"permission denied for database", "42501"),
)


class DriverConnection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """
    A connection of psycopg that ends what was cancelled in the background.

    psycopg's own lets the cancelled task wait until the server has let go, be it one that stands still.
    """

    ending: asyncio.Task[None] | None = None
    terminated: bool = False
    own_adapters: AdaptersMap | None = None

    @property
    def adapters(self) -> AdaptersMap:
        """How values are read and written; what one user has registered ends with that session."""
        if self.own_adapters is None:
            self.own_adapters = AdaptersMap(psycopg.adapters)

        return self.own_adapters

    async def wait(self, gen: Any, interval: float = _INTERVAL, timeout: float | None = None) -> Any:
        """Run an exchange, after the end of one that was cancelled."""
        limit = {} if timeout is None else {"timeout": timeout}  # which the oldest versions do not have
        await self.settle()

        try:
            return await wait_async(gen, self.pgconn.socket, interval=interval, **limit)
        except asyncio.CancelledError:
            if self.pgconn.pipeline_status != PipelineStatus.OFF:
                self.pgconn.finish()  # several exchanges are under way: none can be told from the next
            elif self.pgconn.transaction_status == _BUSY:
                self.end_later(self._stop(gen))

            raise
        finally:
            if self.terminated:
                self.pgconn.finish()

    @property
    def is_ending(self) -> bool:
        """Whether the server has not let go yet of what was cancelled."""
        return self.ending is not None and not self.ending.done()

    async def settle(self) -> None:
        """Wait until what was cancelled has ended."""
        ending = self.ending

        if ending is not None and ending is not asyncio.current_task():
            await asyncio.wait({ending})

            if self.ending is ending:
                self.ending = None

    def end_later(self, work: Coroutine[Any, Any, None]) -> None:
        """End an exchange in the background, behind those that are ended already; none must fail."""
        before = self.ending

        async def end() -> None:
            try:
                if before is not None:
                    await asyncio.wait({before})

                await work
            except psycopg.Error:
                pass  # of the statement that was cancelled, which nobody waits for
            finally:
                work.close()

                if self.terminated or self.pgconn.transaction_status == _BUSY:
                    self.pgconn.finish()

        self.ending = asyncio.create_task(end())

    def terminate(self, *, running: bool = False) -> None:
        """Close at once; while an exchange is ``running``, the end of the connection ends it."""
        self.terminated = True

        if not running and not self.is_ending:
            self.pgconn.finish()
        elif self.pgconn.status != ConnStatus.BAD:
            # The event loop still watches the socket's number, which must not become another's meanwhile.
            with suppress(OSError), socket.socket(fileno=os.dup(self.pgconn.socket)) as twin:
                twin.shutdown(socket.SHUT_RDWR)

    async def _stop(self, gen: Any) -> None:
        """Have the server stop a statement, and read what it still sends."""
        for _ in range(_ATTEMPTS):
            try:
                async with asyncio.timeout(_STOP):
                    await self.cancel_safe(timeout=_STOP)
                    await wait_async(gen, self.pgconn.socket, interval=_INTERVAL)
            except (TimeoutError, psycopg.errors.CancellationTimeout):
                continue  # it may have come before the statement had begun
            else:
                return


async def open_driver_connection(server: Server) -> DriverConnection:
    """Open a connection of psycopg."""
    hosts = server.hosts or (server.host,)
    settings = " ".join(
        f"-c {name}=" + re.sub(r"([\\ ])", r"\\\1", value) for name, value in server.server_settings.items()
    )
    options: dict[str, Any] = {
        "host": ",".join(hosts),
        "port": server.port,
        "user": await current_credential(server.user) or None,
        "password": await current_credential(server.password),
        "dbname": server.db,
        "passfile": server.passfile,
        "sslmode": server.ssl,
        "application_name": server.application_name,
        "target_session_attrs": server.target_session_attrs,
        "options": settings or None,
        "autocommit": True,
        # Without, each statement is parsed anew and unnamed, which a pooler in transaction mode needs.
        "prepare_threshold": 5 if server.prepared and server.statement_cache_size else None,
        "cursor_factory": psycopg.AsyncRawCursor,
    }

    try:
        async with asyncio.timeout(server.connect_timeout):
            raw = await DriverConnection.connect(
                **{
                    name: value
                    for name, value in options.items()
                    if value is not None or name == "prepare_threshold"
                }
            )
    except psycopg.OperationalError as error:
        text = str(error)
        error.sqlstate = next((state for words, state in _REFUSALS if re.search(words, text)), None)
        raise

    # With 0 psycopg would deallocate a statement as soon as `Prepared` has it prepared.
    raw.prepared_max = server.statement_cache_size or 1
    return raw
