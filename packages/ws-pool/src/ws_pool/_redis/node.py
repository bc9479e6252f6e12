"""One server of a pool: its shared connections, and those that are lent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection, ConnectionPool

from ws_pool._redis.connection.encoder import CommandEncoder
from ws_pool._redis.connection.endpoint import Endpoint
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool._redis.connection.reconnecting import ReconnectingConnection
from ws_pool._redis.dedicated.connection import connection_options
from ws_pool._redis.dedicated.pool import Connector, DedicatedConnections
from ws_pool._redis.options import RedisOptions
from ws_pool.pool import Pool

__all__ = ("Node", "NodeContext", "static_resolver")

_SPREAD: Final = 0x9E3779B1  # addresses of tasks differ in few bits: Knuth's multiplier spreads them
Resolve = Callable[[], Awaitable[Endpoint]]


def static_resolver(endpoint: Endpoint) -> Resolve:
    """
    Resolve to the same endpoint always.

    Args:
        endpoint: The endpoint.

    Returns:
        What a node asks for its endpoint.
    """

    async def resolve() -> Endpoint:
        return endpoint

    return resolve


@dataclass(slots=True)
class NodeContext:
    """
    What all nodes of a pool have in common.

    Args:
        name: The pool's name.
        settings: The pool's options.
        on_push: Gets RESP3 push messages.
        on_up: Called with each new link before anybody may use it.
        on_down: Called with each lost link.
    """

    name: str
    settings: RedisOptions
    on_push: Callable[[list[Any]], None] = lambda _: None
    on_up: Callable[[PipelinedConnection], None] = lambda _: None
    on_down: Callable[[PipelinedConnection], None] = lambda _: None
    options: dict[str, Any] = field(init=False)  # Any: redis-py's keyword arguments
    packer: CommandEncoder = field(init=False)

    def __post_init__(self) -> None:
        settings = self.settings
        codec = settings.encoding.lower().replace("_", "-")
        self.options = connection_options(
            encoding=settings.encoding,
            errors=settings.encoding_errors,
            decode_responses=settings.decode_responses,
            protocol=settings.protocol,
        )
        encoder = ConnectionPool(**self.options).get_encoder()
        self.packer = CommandEncoder(
            encoder.encode, fast=codec in {"utf-8", "utf8"} and settings.encoding_errors == "strict"
        )


class Node:
    """
    One server.

    Args:
        wiring: What the pool's nodes have in common.
        resolve: Gives the endpoint for the next connect.
        key: Host and port in a cluster; None for the only node.
    """

    def __init__(self, wiring: NodeContext, resolve: Resolve, *, key: tuple[str, int] | None = None) -> None:
        settings = wiring.settings
        self.key = key
        self.lanes = tuple(
            ReconnectingConnection(
                wiring.name,
                resolve,
                wiring.packer,
                settings.limits,
                encoding=settings.encoding if settings.decode_responses else None,
                errors=settings.encoding_errors,
                on_push=wiring.on_push,
                on_up=wiring.on_up,
                on_down=wiring.on_down,
                several=settings.shared_connections > 1,
            )
            for _ in range(settings.shared_connections)
        )
        self._closed = False
        self._wiring = wiring
        self._connector = Connector(resolve, wiring.options, timeout=settings.limits.connect_timeout)
        self.pool = self._new_pool(settings.min_size)
        self.leases = DedicatedConnections(
            self.pool,
            acquire_timeout=settings.acquire_timeout,
            patience=settings.limits.outage_timeout,
            check=lambda: self.pick().check_reachable(),
            **wiring.options,
        )
        self.lane = self.lanes[0] if len(self.lanes) == 1 else None

    def __repr__(self) -> str:
        return f"<Node {self.lanes[0].endpoint or self.key}>"

    def pick(self, *commands: Sequence[Any]) -> ReconnectingConnection:
        """
        Choose a lane: by task; behind a cancelled command when they have a key in common.

        Args:
            *commands: The commands that are to be sent as one piece.

        Returns:
            The lane.
        """
        lanes = self.lanes

        if commands and len(lanes) > 1:
            for lane in lanes:
                if lane.must_follow(*commands):
                    return lane

        return lanes[(id(asyncio.current_task()) * _SPREAD >> 24) % len(lanes)]

    async def start(self) -> None:
        """
        Connect all lanes.

        Raises:
            UnavailableError: The server can't be reached or refused the greeting.
        """
        for lane in self.lanes:
            await lane.start()

        if not self._closed:
            await self.pool.start()

    async def start_in_outage(self) -> None:
        """Go on in the background after `start` has failed; no connection is kept open to be lent."""
        if self._closed:
            return

        for lane in self.lanes:
            if not lane.connected:
                lane.start_soon()

        if not self.pool.ready:
            self.pool = self._new_pool(min_size=0)
            self.leases.use(self.pool)
            await self.pool.start()

    async def close(self, *, timeout: float) -> None:  # noqa: ASYNC109 - how long to wait for others, not for the caller
        """
        Close after the replies that are due.

        Args:
            timeout: Seconds to wait for replies and for lent connections to come back.
        """
        self._closed = True
        await asyncio.gather(*(lane.close(timeout=timeout) for lane in self.lanes))

        if self.pool.ready:
            self.leases.hang_up()
            await self.pool.close(timeout=timeout)

    def _new_pool(self, min_size: int) -> Pool[AbstractConnection]:
        settings = self._wiring.settings
        return Pool(
            self._connector,
            name=self._wiring.name,
            min_size=min_size,
            max_size=settings.max_size,
            acquire_timeout=settings.acquire_timeout,
            connect_timeout=settings.limits.connect_timeout,
            leak_threshold=settings.leak_threshold,
        )
