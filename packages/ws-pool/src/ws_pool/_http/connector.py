"""The connections of an HTTP pool: none is used again that is not where the last answer left it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
from aiohttp.connector import Connection

from ws_pool._http.address_guard import guarded_socket
from ws_pool._http.options import HttpOptions

if TYPE_CHECKING:
    from aiohttp import ClientRequest, ClientTimeout
    from aiohttp.tracing import Trace

__all__ = ("make_connector",)


class _CleanConnections(aiohttp.BaseConnector):
    """Drops a connection on which something came while it was idle."""

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Connection:
        """Connect, or take an idle connection that is still as the last answer left it."""
        connection = await super().connect(req, traces, timeout)

        # aiohttp looks at this when a connection is released, but not when it is used again: an answer
        # that a server sends unasked would be taken for that of the next request.
        if (protocol := connection.protocol) is None or not protocol.should_close:
            return connection

        # Every idle connection may be such a one. A server that sends something at once, on a new
        # connection, ends the search; aiohttp refuses that answer.
        for _ in range(1 + sum(map(len, self._conns.values()))):
            connection.close()
            connection = await super().connect(req, traces, timeout)

            if (protocol := connection.protocol) is None or not protocol.should_close:
                break

        return connection


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
