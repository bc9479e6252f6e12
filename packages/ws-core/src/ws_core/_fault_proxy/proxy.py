"""The proxy that stands between a client and its server and does what networks do."""

from __future__ import annotations

import asyncio
import random
import socket
from typing import Literal, Self
from urllib.parse import urlsplit, urlunsplit

from ws_core._fault_proxy.dialects import DIALECTS
from ws_core._fault_proxy.direction import Direction, Weather
from ws_core._fault_proxy.faults import Armed, Fault, Loses, Then
from ws_core._fault_proxy.proxied import Counters, ProxiedConnection

WireProtocol = Literal["resp", "mysql", "raw"]
Side = Literal["server", "client", "both"]


class FaultProxy:
    """
    A TCP proxy on a port of its own, which it keeps until it is closed.

    Without faults it only passes bytes on, and counts. Faults of requests (`drop_request`,
    `drop_reply`, `truncate_reply`, `reached`) count requests from the moment of the call, over all
    connections, in the order in which they come.

    Args:
        host: Host of the server, or the path of its unix socket.
        port: Port of the server; None for a unix socket.
        protocol: What a request is: a command of ``"resp"`` (Redis) or ``"mysql"``, or, with
            ``"raw"``, each chunk of bytes that comes from a client.
        seed: Seed of the jitter.

    Example:
        ```python no-run
        async with FaultProxy(server.host, server.port) as proxy:
            client = Redis(host=proxy.host, port=proxy.port)
            lost = proxy.drop_reply(1, match="INCR")
            ...
            await lost.wait()
        ```
    """

    def __init__(
        self, host: str, port: int | None = None, *, protocol: WireProtocol = "resp", seed: int = 0
    ) -> None:
        self._target = host, port
        self._dialect = DIALECTS[protocol]
        self._chance = random.Random(seed)
        self._to_server = Weather()
        self._to_client = Weather()
        self._armed = Armed()
        self._connections: dict[ProxiedConnection, asyncio.Task[None]] = {}
        self._black_hole = False
        self._listener: socket.socket | None = None
        self._anchor: socket.socket | None = None  # keeps the port while nobody listens
        self.host: str = "127.0.0.1"
        self.port: int = 0
        self.counters: Counters = Counters()

    def __repr__(self) -> str:
        return f"<FaultProxy {self.host}:{self.port} {self.counters}>"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that clients connect to."""
        return self.host, self.port

    @property
    def connections(self) -> int:
        """Connections that clients have made, ended ones included."""
        return self.counters.connections

    @property
    def open_connections(self) -> int:
        """Connections that exist now."""
        return len(self._connections)

    @property
    def requests(self) -> int:
        """Requests that have come, lost ones included."""
        return self.counters.requests

    @property
    def replies(self) -> int:
        """Replies that have come, lost ones included."""
        return self.counters.replies

    def url(self, url: str) -> str:
        """Return a server's URL with the proxy's host and port in place of the server's."""
        parts = urlsplit(url)
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}{self.host}:{self.port}"))

    async def start(self) -> None:
        """Choose a port and listen."""
        self._anchor = socket.socket()
        # Bound and never listening: another socket with this option may listen on the port, nobody else
        # can be given it, and a connection to it is refused as long as nobody listens.
        self._anchor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._anchor.bind((self.host, 0))
        self.port = self._anchor.getsockname()[1]
        self._listen()

    async def close(self) -> None:
        """Stop listening and end all connections."""
        self.refuse()
        tasks = list(self._connections.values())

        for task in tasks:
            task.cancel()

        if tasks:
            await asyncio.wait(tasks)

        if self._anchor is not None:
            self._anchor.close()
            self._anchor = None

    def delay(self, seconds: float, *, jitter: float = 0.0, to: Side = "both") -> None:
        """
        Let bytes arrive late, in their order; pieces don't wait for each other.

        Args:
            seconds: How late.
            jitter: Seconds up to which a random delay is added.
            to: The direction.
        """
        for weather in self._weather(to):
            weather.delay, weather.jitter = seconds, jitter

    def throttle(self, bytes_per_second: float, *, to: Side = "both") -> None:
        """
        Limit the speed of each connection.

        Args:
            bytes_per_second: The limit.
            to: The direction.
        """
        for weather in self._weather(to):
            weather.rate = bytes_per_second

    def hold(self, *, to: Side = "client") -> None:
        """
        Keep bytes back until `release` or `heal`; nothing is lost.

        Args:
            to: The direction.
        """
        for weather in self._weather(to):
            weather.clear.clear()

    def release(self, *, to: Side = "both") -> None:
        """
        Let bytes go that `hold` keeps back.

        Args:
            to: The direction.
        """
        for weather in self._weather(to):
            weather.clear.set()

    def drop_reply(self, nth: int = 1, *, match: str | None = None, then: Then = "close") -> asyncio.Event:
        """
        Lose the reply to the n-th request from now: the server acts, the client learns nothing.

        Earlier replies arrive. Later ones of the same connection do not, save with ``then="continue"``.

        Args:
            nth: 1 for the next request.
            match: Count only requests of this name, such as ``"EVALSHA"`` or ``"QUERY"``.
            then: What becomes of the connection.

        Returns:
            An event that is set when the reply has been lost.
        """
        return self._arm("reply", nth, match, then)

    def truncate_reply(
        self, nth: int = 1, *, match: str | None = None, then: Then = "close"
    ) -> asyncio.Event:
        """
        Deliver half of a reply, with MySQL half of its first packet; otherwise like `drop_reply`.

        Args:
            nth: 1 for the next request.
            match: Count only requests of this name.
            then: What becomes of the connection.

        Returns:
            An event that is set when it has happened.
        """
        return self._arm("half of the reply", nth, match, then)

    def drop_request(self, nth: int = 1, *, match: str | None = None, then: Then = "close") -> asyncio.Event:
        """
        Lose the n-th request from now: it never reaches the server.

        Earlier requests are answered (save perhaps with ``then="cut"``), later ones of the same
        connection are lost too, save with ``then="continue"``.

        Args:
            nth: 1 for the next request.
            match: Count only requests of this name.
            then: What becomes of the connection.

        Returns:
            An event that is set when the request has been lost.
        """
        return self._arm("request", nth, match, then)

    def reached(self, nth: int = 1, *, match: str | None = None) -> asyncio.Event:
        """
        Report when the n-th request from now has been sent on to the server.

        Args:
            nth: 1 for the next request.
            match: Count only requests of this name.

        Returns:
            An event that is set then.
        """
        return self._arm("nothing", nth, match, "continue")

    def cut(self) -> None:
        """Reset all present connections on both sides (RST); new ones are served."""
        for connection in self._connections:
            connection.cut()

    def half_close(self, *, to: Literal["server", "client"] = "client") -> None:
        """
        Send FIN to one side of all present connections; the other direction goes on.

        Args:
            to: The side that sees the other one end.
        """
        for connection in self._connections:
            connection.half_close(to)

    def black_hole(self) -> None:
        """
        Let all bytes vanish silently: old connections fall silent, new ones are accepted.

        After `heal`, connections that have lost bytes are reset; the others go on.
        """
        self._black_hole = True

        for connection in self._connections:
            connection.silence()

    def refuse(self) -> None:
        """Stop listening until `heal`: new connections are refused, old ones go on."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def heal(self) -> None:
        """End all faults: late and held bytes arrive at once, and the proxy listens."""
        self._black_hole = False
        self._armed.clear()
        self._to_server.heal()
        self._to_client.heal()

        for connection in self._connections:
            connection.heal()

        if self._listener is None:
            self._listen()

    def _arm(self, loses: Loses, nth: int, match: str | None, then: Then) -> asyncio.Event:
        fault = Fault(nth, None if match is None else match.upper(), loses, then)
        self._armed.add(fault)
        return fault.happened

    def _weather(self, to: Side) -> list[Weather]:
        return {
            "server": [self._to_server],
            "client": [self._to_client],
            "both": [self._to_server, self._to_client],
        }[to]

    def _listen(self) -> None:
        self._listener = socket.create_server(self.address, backlog=1024)
        self._listener.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # the client has given up meanwhile

        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.counters.connections += 1
        connection = ProxiedConnection(
            client,
            dialect=self._dialect(),
            up=Direction(self._to_server, self._chance),
            down=Direction(self._to_client, self._chance),
            armed=self._armed,
            counters=self.counters,
            silent=self._black_hole,
        )
        task = asyncio.get_running_loop().create_task(connection.run(self._connect))
        self._connections[connection] = task
        task.add_done_callback(lambda _task: self._connections.pop(connection))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self._target

        if port is None:
            return await asyncio.open_unix_connection(host)

        return await asyncio.open_connection(host, port)
