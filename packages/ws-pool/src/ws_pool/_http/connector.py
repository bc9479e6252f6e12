"""The connections of an HTTP pool: none is used again that is not where the last answer left it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import aiohttp

from ws_pool._http.address_guard import guarded_socket
from ws_pool._http.mock import HttpMock
from ws_pool._http.options import HttpOptions

if TYPE_CHECKING:
    from aiohttp import ClientRequest, ClientTimeout
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace


class PoolConnector(aiohttp.BaseConnector):
    """Drops an idle connection on which something came since its last answer; may connect to a mock."""

    _mock: HttpMock | None = None

    def _get(self, key: ConnectionKey, traces: list[Trace]) -> Coroutine[Any, Any, Connection | None]:
        # aiohttp looks at this when a connection is released, but not when it is used again: an answer
        # that a server sends unasked would be taken for that of the next request. Not a coroutine
        # function itself, which saves a frame for each request.
        if idle := self._conns.get(key):
            while idle and idle[0][0].should_close:
                idle.popleft()[0].close()

        return super()._get(key, traces)

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> ResponseHandler:
        if self._mock is not None:
            return await self._mock.connect(self._factory)

        return await super()._create_connection(req, traces, timeout)

    def use_mock(self, mock: HttpMock | None) -> None:
        """Connect to a mock from now on, or to the network again."""
        # Connections of the one must not be used again for the other.
        for kept in self._conns.values():
            for protocol, _ in kept:
                protocol.close()

        self._conns.clear()
        self._mock = mock

    @property
    def is_busy(self) -> bool:
        """Whether there are requests in flight, or a mock."""
        return bool(self._acquired) or self._mock is not None


class _TCPConnector(PoolConnector, aiohttp.TCPConnector):
    pass


class _UnixConnector(PoolConnector, aiohttp.UnixConnector):
    pass


def make_connector(options: HttpOptions) -> PoolConnector:
    """Make the connections of a pool."""
    if options.unix_socket is not None:
        return _UnixConnector(
            options.unix_socket,
            limit=options.limit,
            limit_per_host=options.limit_per_host,
            keepalive_timeout=options.keepalive,
        )

    return _TCPConnector(
        limit=options.limit,
        limit_per_host=options.limit_per_host,
        keepalive_timeout=options.keepalive,
        ssl=options.verify,
        socket_factory=guarded_socket if options.deny_private else None,
    )
