"""Where the master of a Sentinel service is, and when it changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from ws_core import backoff
from ws_core.errors import describe
from ws_pool._core.background import cancel_and_wait
from ws_pool._redis.connection.encoder import CommandEncoder
from ws_pool._redis.connection.endpoint import Endpoint
from ws_pool._redis.connection.one_shot import request_once
from ws_pool._redis.dedicated.connection import connection_options, make_connection
from ws_pool._redis.dedicated.pool import SingleConnectionPool
from ws_pool._redis.errors import ConnectionLost
from ws_pool.errors import UnavailableError, WsError

_logger: Final = logging.getLogger("ws_pool.redis")
_SWITCH: Final = "+switch-master"
_PAUSE: Final = 0.2  # seconds between two attempts to listen


class MasterResolver:
    """Resolves the master of a service; the Sentinel that answered is tried first next time."""

    def __init__(
        self,
        sentinels: Sequence[tuple[str, int]],
        service: str,
        *,
        sentinel_endpoint: Endpoint,
        master_endpoint: Endpoint,
        encoder: CommandEncoder,
        timeout: float = 1.0,
    ) -> None:
        self._sentinels = list(sentinels)
        self._service = service
        self._sentinel_endpoint = sentinel_endpoint
        self._master_endpoint = master_endpoint
        self._encoder = encoder
        self._timeout = timeout

    @property
    def service(self) -> str:
        """The master's name."""
        return self._service

    @contextlib.asynccontextmanager
    async def listener(self) -> AsyncIterator[PubSub]:
        """Connect to the Sentinel that answered last, to subscribe to its events within a block."""
        options = connection_options(encoding="utf-8", errors="strict", decode_responses=True, protocol=2)
        connection = make_connection(
            self._sentinel_endpoint.at(*self._sentinels[0]), options, timeout=self._timeout
        )

        try:
            await connection.connect()

            async with Redis(connection_pool=SingleConnectionPool(connection, **options)).pubsub() as pubsub:
                yield pubsub
        finally:
            await connection.disconnect(nowait=True)

    async def __call__(self) -> Endpoint:
        """Return the master's endpoint, from the first Sentinel that knows it."""
        failures: list[str] = []

        for index, (host, port) in enumerate(self._sentinels):
            try:
                address = await self._request((host, port), "GET-MASTER-ADDR-BY-NAME")
            except (OSError, TimeoutError, RedisError, ConnectionLost) as error:
                failures.append(f"{host}:{port}: {describe(error)}")
                continue

            if address is None:
                failures.append(f"{host}:{port} does not know it")
                continue

            self._sentinels.insert(0, self._sentinels.pop(index))
            return self._master_endpoint.at(address[0].decode(), int(address[1]))

        message = f"no Sentinel knows the master of {self._service!r} ({'; '.join(failures)})"
        raise UnavailableError(message, service=self._service)

    async def replicas(self) -> list[tuple[str, int]]:
        """Return where the replicas are that a Sentinel takes for healthy."""
        reply = await self._request(self._sentinels[0], "REPLICAS")
        found = [dict(zip(entry[::2], entry[1::2], strict=False)) for entry in reply]
        down = {b"s_down", b"o_down", b"disconnected"}
        return [
            (replica[b"ip"].decode(), int(replica[b"port"]))
            for replica in found
            if down.isdisjoint(replica[b"flags"].split(b","))
        ]

    async def _request(self, sentinel: tuple[str, int], subcommand: str) -> Any:  # Any: a reply
        """Ask a Sentinel about the service."""
        words = ("SENTINEL", subcommand, self._service)
        endpoint = self._sentinel_endpoint.at(*sentinel)
        return await request_once(endpoint, self._encoder, *words, timeout=self._timeout)


class FailoverListener:
    """Subscribes to a Sentinel, so that a fail-over is noticed even while the old master still answers."""

    def __init__(
        self,
        resolver: MasterResolver,
        on_switch: Callable[[str, int], None],
        *,
        on_replicas: Callable[[Sequence[tuple[str, int]]], None] | None = None,
        heartbeat: float = 5.0,
    ) -> None:
        self._resolver = resolver
        self._on_switch = on_switch
        self._on_replicas = on_replicas
        self._heartbeat = heartbeat
        self._task = asyncio.get_running_loop().create_task(self._run(), name="ws-pool sentinel listener")

    async def close(self) -> None:
        """Stop listening."""
        await cancel_and_wait(self._task)

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (RedisError, WsError, OSError, TimeoutError) as error:
                _logger.info(
                    "redis service %r: a Sentinel does not answer: %s", self._resolver.service, error
                )
            except Exception:  # no message of a Sentinel may end the listener
                _logger.exception(
                    "redis service %r: a Sentinel has sent something unexpected", self._resolver.service
                )

            await asyncio.sleep(backoff.spread(_PAUSE, 0.5, 1.5))

    async def _listen(self) -> None:
        await self._check_master()  # which also puts a Sentinel that answers first

        async with self._resolver.listener() as pubsub:
            await pubsub.subscribe(_SWITCH)
            await self._check_master()  # a fail-over before the subscription

            while True:
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=self._heartbeat)

                if message is None:
                    await self._check_master()
                    await pubsub.ping()
                elif message["type"] == "message":
                    self._on_message(str(message["data"]))

    def _on_message(self, text: str) -> None:
        """Read the news of a fail-over: the service, its old host and port, and the new ones."""
        service, *_, host, port = text.split() if text.count(" ") >= 4 else ("", "", "")

        if service == self._resolver.service and port.isdecimal():
            self._on_switch(host, int(port))

    async def _check_master(self) -> None:
        endpoint = await self._resolver()
        self._on_switch(endpoint.host, endpoint.port)

        if self._on_replicas is not None:
            self._on_replicas(await self._resolver.replicas())
