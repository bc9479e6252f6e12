"""Asking Sentinels where the master is, and hearing from them when it changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from ws_pool._core.background import cancel_and_wait
from ws_pool._redis.connection.encoder import CommandEncoder
from ws_pool._redis.connection.endpoint import Endpoint
from ws_pool._redis.connection.one_shot import request_once
from ws_pool._redis.dedicated.connection import connection_options, make_connection
from ws_pool._redis.dedicated.pool import SingleConnectionPool
from ws_pool._redis.errors import ConnectionLost
from ws_pool.errors import UnavailableError, WsError

__all__ = ("FailoverListener", "MasterResolver")

_logger: Final = logging.getLogger("ws_pool.redis")
_SWITCH: Final = "+switch-master"


class MasterResolver:
    """
    Finds the master of a service.

    Args:
        sentinels: Host and port of each Sentinel; the one that answered is asked first next time.
        service: The master's name.
        greeting: How to greet a Sentinel.
        master: How to greet the master.
        packer: Packs commands.
        timeout: Seconds for each Sentinel.
    """

    def __init__(  # noqa: PLR0913 - made in one place only, by name
        self,
        sentinels: Sequence[tuple[str, int]],
        service: str,
        *,
        greeting: Endpoint,
        master: Endpoint,
        packer: CommandEncoder,
        timeout: float = 1.0,
    ) -> None:
        self._sentinels = list(sentinels)
        self._service = service
        self._greeting = greeting
        self._master = master
        self._packer = packer
        self._timeout = timeout

    @property
    def service(self) -> str:
        """The master's name."""
        return self._service

    @contextlib.asynccontextmanager
    async def listener(self) -> AsyncIterator[PubSub]:
        """
        Connect to the Sentinel that answered last, greeted like for a question, to listen to it.

        Yields:
            A subscriber; its connection is closed with the block.

        Raises:
            OSError: It cannot be reached.
            redis.exceptions.RedisError: It cannot be reached, or refused the greeting.
        """
        options = connection_options(encoding="utf-8", errors="strict", decode_responses=True, protocol=2)
        connection = make_connection(self._greeting.at(*self._sentinels[0]), options, timeout=self._timeout)

        try:
            await connection.connect()

            async with Redis(connection_pool=SingleConnectionPool(connection, **options)).pubsub() as pubsub:
                yield pubsub
        finally:
            await connection.disconnect(nowait=True)

    async def __call__(self) -> Endpoint:
        """
        Ask the Sentinels one after the other.

        Returns:
            The master's endpoint.

        Raises:
            UnavailableError: No Sentinel knows the master.
        """
        failures: list[str] = []

        for index, (host, port) in enumerate(self._sentinels):
            try:
                address = await self._ask(host, port)
            except (OSError, TimeoutError, RedisError, ConnectionLost) as error:
                failures.append(f"{host}:{port}: {str(error) or type(error).__name__}")
                continue

            if address is None:
                failures.append(f"{host}:{port} does not know it")
                continue

            self._sentinels.insert(0, self._sentinels.pop(index))
            return self._master.at(*address)

        message = f"no Sentinel can tell the master of {self._service!r} ({'; '.join(failures)})"
        raise UnavailableError(message, service=self._service)

    async def _ask(self, host: str, port: int) -> tuple[str, int] | None:
        reply: Any = await request_once(
            self._greeting.at(host, port),
            self._packer,
            "SENTINEL",
            "GET-MASTER-ADDR-BY-NAME",
            self._service,
            timeout=self._timeout,
        )
        return None if reply is None else (reply[0].decode(), int(reply[1]))


class FailoverListener:
    """
    Listens to a Sentinel, so that a fail-over is noticed before the old master is.

    Args:
        finder: Finds Sentinels and the master.
        on_switch: Called with the address of the master, at each look and each change.
        heartbeat: Seconds of silence after which the Sentinel is checked, and the master looked up.
    """

    def __init__(
        self, finder: MasterResolver, on_switch: Callable[[str, int], None], *, heartbeat: float = 5.0
    ) -> None:
        self._finder = finder
        self._on_switch = on_switch
        self._heartbeat = heartbeat
        self._task = asyncio.get_running_loop().create_task(self._run(), name="ws-pool sentinel watch")

    async def close(self) -> None:
        """Listen no more."""
        await cancel_and_wait(self._task)

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (RedisError, WsError, OSError, TimeoutError) as error:
                _logger.info("redis service %r: a Sentinel is silent: %s", self._finder.service, error)
            except Exception:  # whatever a Sentinel says must not end the watch
                _logger.exception("redis service %r: a Sentinel puzzles", self._finder.service)

            await asyncio.sleep(random.uniform(0.1, 0.3))

    async def _listen(self) -> None:
        await self._look()  # this finds a Sentinel that answers, too

        async with self._finder.listener() as pubsub:
            await pubsub.subscribe(_SWITCH)
            await self._look()  # what has happened before the subscription

            while True:
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=self._heartbeat)

                if message is None:
                    await self._look()
                    await pubsub.ping()
                elif message["type"] == "message":
                    self._heard(str(message["data"]))

    def _heard(self, text: str) -> None:
        service, *_, host, port = text.split() if text.count(" ") >= 4 else ("", "", "")

        if service == self._finder.service and port.isdecimal():
            self._on_switch(host, int(port))

    async def _look(self) -> None:
        endpoint = await self._finder()
        self._on_switch(endpoint.host, endpoint.port)
