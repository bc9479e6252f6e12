"""The connections of an HTTP pool: none is used again that is not where the last answer left it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import aiohttp

from ws_pool._http.address_guard import guarded_socket
from ws_pool._http.options import HttpOptions

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

__all__ = ("make_connector",)


class _CleanConnections(aiohttp.BaseConnector):
    """Drops an idle connection on which something came since its last answer."""

    def _get(self, key: ConnectionKey, traces: list[Trace]) -> Coroutine[Any, Any, Connection | None]:
        # aiohttp looks at this when a connection is released, but not when it is used again: an answer
        # that a server sends unasked would be taken for that of the next request. Not a coroutine
        # function itself, which saves a frame for each request.
        if idle := self._conns.get(key):
            while idle and idle[0][0].should_close:
                idle.popleft()[0].close()

        return super()._get(key, traces)


class _TCPConnector(_CleanConnections, aiohttp.TCPConnector):
    pass


class _UnixConnector(_CleanConnections, aiohttp.UnixConnector):
    pass


def make_connector(options: HttpOptions) -> aiohttp.BaseConnector:
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
