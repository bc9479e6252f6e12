"""Logs live connections in again when the credentials of a pool have changed."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Final, cast

from redis.exceptions import RedisError

from ws_core import backoff
from ws_pool._core.background import TaskSet, cancel_and_wait
from ws_pool._redis.connection.credentials import CredentialSource, Login
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool._redis.errors import UnavailableError
from ws_pool._redis.node import Node

_logger: Final = logging.getLogger("ws_pool.redis")
_PAUSES: Final = (0.5, 30.0)  # seconds between two attempts after a refusal: the server may learn it later


class Reauthenticator:
    """
    Keeps the logins of a pool's connections up to date.

    ``nodes`` returns the present nodes, and ``log_in_subscribers`` is called for what they don't hold.
    """

    def __init__(
        self,
        name: str,
        source: CredentialSource,
        interval: float | None,
        *,
        nodes: Callable[[], Iterable[Node]],
        log_in_subscribers: Callable[[], None],
    ) -> None:
        self._name = name
        self._source = source
        self._nodes = nodes
        self._log_in_subscribers = log_in_subscribers
        self._loop = asyncio.get_running_loop()
        self._tasks = TaskSet()
        self._newest: Login | None = None  # of those that were requested or received
        self._closed = False

        if source.streaming is not None:
            # redis-py declares plain functions, but providers for asyncio await what these return.
            source.streaming.on_next(cast("Callable[[Any], None]", self._on_token))
            source.streaming.on_error(cast("Callable[[Exception], None]", self._on_error))

        if interval is not None:
            self._spawn(self._repeat(interval))

    async def close(self) -> None:
        """Stop; a streaming provider may go on and is not listened to any more."""
        self._closed = True
        await cancel_and_wait(*self._tasks)

    async def reauthenticate(self) -> None:
        """Request the credentials, and log all connections in with them; raise when a server refuses."""
        login = self._newest = await self._source.request()
        await self._log_in(login)

    def check(self, connection: PipelinedConnection) -> None:
        """Log a new connection in again if the credentials have changed during its handshake."""
        if (login := self._source.newer_than(connection.login)) is not None:
            self._spawn(self._log_in_until_done(login))

    # Inside -----------------------------------------------------------------------------------

    async def _log_in(self, login: Login) -> None:
        # Shared connections first: when the server refuses them, the others are left alone.
        await self._log_in_shared(login)

        if self._source.latest is None or self._source.latest.number < login.number:
            self._source.latest = login

        await self._log_in_shared(login)  # those whose handshake was under way
        self._log_in_subscribers()
        await asyncio.gather(*(node.dedicated.refresh_logins(node.request) for node in self._nodes()))
        _logger.info("redis pool %r has logged its connections in again", self._name)

    async def _log_in_shared(self, login: Login) -> None:
        shared_connections = [shared for node in self._nodes() for shared in node.shared_connections]
        results = await asyncio.gather(
            *(shared.log_in(login) for shared in shared_connections), return_exceptions=True
        )

        for error in results:
            if isinstance(error, RedisError):
                message = (
                    f"redis pool {self._name!r}: the server has refused the new credentials ({error});"
                    " its connections go on with those they have"
                )
                raise UnavailableError(message, pool=self._name) from error

            if error is not None:
                raise error

    async def _log_in_until_done(self, login: Login) -> None:
        for attempt in itertools.count(1):
            try:
                await self._log_in(login)
            except UnavailableError as error:
                _logger.warning("%s", error)
            else:
                return

            await asyncio.sleep(backoff.delay(attempt, *_PAUSES))

            if self._newest is not None and self._newest.number > login.number:
                return

    async def _repeat(self, interval: float) -> None:
        failures = 0

        while True:
            await asyncio.sleep(min(interval, backoff.delay(failures, *_PAUSES)) if failures else interval)

            try:
                await self.reauthenticate()
            except Exception as error:  # noqa: BLE001 - whatever the user's callable raises, the next may work
                failures += 1
                _logger.warning("redis pool %r cannot log in again: %s", self._name, error)
            else:
                failures = 0

    def _on_token(self, token: Any) -> _Done:  # Any: a token of redis-py
        """Take a token from a streaming provider, in whichever thread or loop that runs."""
        username = token.try_get("oid")
        value: str = token.get_value()
        login = self._source.received((username, value) if username else value)

        if not self._closed:
            self._loop.call_soon_threadsafe(self._rotate, login)

        return _Done()

    def _on_error(self, error: Exception) -> _Done:
        _logger.warning("redis pool %r: its credential provider has failed: %s", self._name, error)
        return _Done()

    def _rotate(self, login: Login) -> None:
        if not self._closed:
            self._newest = login
            self._spawn(self._log_in_until_done(login))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.spawn(work, name=f"ws-pool redis {self._name} logins")


class _Done:
    """What a callback of redis-py's providers returns: they await it, or not."""

    def __await__(self) -> Iterator[None]:
        return iter(())
