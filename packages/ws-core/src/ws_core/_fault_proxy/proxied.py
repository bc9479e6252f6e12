"""One proxied connection: two directions, and the faults that hit this connection alone."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import InitVar, dataclass

from ws_core._fault_proxy.dialects import Dialect, ReplyPiece, RequestPiece
from ws_core._fault_proxy.direction import Direction
from ws_core._fault_proxy.faults import Armed, Fault

_CHUNK = 1 << 16

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@dataclass(slots=True)
class Counters:
    """What the proxy has seen; `requests` and `replies` are those that it forwarded or lost."""

    connections: int = 0
    requests: int = 0
    replies: int = 0
    lost_requests: int = 0
    lost_replies: int = 0
    bytes_to_server: int = 0
    bytes_to_client: int = 0


class _State(enum.Enum):
    OPEN = enum.auto()
    SILENT = enum.auto()  # a black hole: bytes vanish, and neither side learns of the other's end
    ENDED = enum.auto()  # closed towards the client: what it still sends is lost, and its end is passed on


@dataclass(eq=False)
class ProxiedConnection:
    """A client's connection and the one that the proxy opens for it."""

    client: socket.socket
    dialect: Dialect
    up: Direction  # to the server
    down: Direction  # to the client
    armed: Armed
    counters: Counters
    silent: InitVar[bool]

    def __post_init__(self, silent: bool) -> None:
        self._writer: asyncio.StreamWriter | None = None
        self._upstream: asyncio.StreamWriter | None = None
        self._state = _State.SILENT if silent else _State.OPEN
        self._healed = asyncio.Event()
        self._lossy = False
        self._swallowing = False
        self._deaf = False  # to the client: what it sends is lost, while replies still pass
        self._unanswered: deque[Fault | None] = deque()

    async def run(self, connect: Connect) -> None:
        """Carry both directions until both have ended."""
        try:
            reader, self._writer = await asyncio.open_connection(sock=self.client)
            self.down.open(self._writer)

            if self._state is _State.SILENT:
                await self._vanish(reader)

            if self._state is _State.OPEN:
                await self._carry(reader, connect)
        finally:
            await self._close()

    def cut(self) -> None:
        """Reset both sides (RST), as when a host has forgotten the connection."""
        self._state = _State.ENDED

        for writer in (self._writer, self._upstream):
            if writer is not None:
                _reset(writer)

    def half_close(self, to: str) -> None:
        """Send FIN to one side; the other direction goes on."""
        (self.down if to == "client" else self.up).send_eof()

    def silence(self) -> None:
        """Let all bytes of both directions vanish until `heal`."""
        if self._state is _State.OPEN:
            self._state = _State.SILENT
            self._healed.clear()

    def heal(self) -> None:
        """Go on; a connection that has lost bytes is cut, since its streams make no sense any more."""
        if self._lossy:
            self.cut()
        elif self._state is _State.SILENT:
            self._state = _State.OPEN

        self._healed.set()

    async def _carry(self, reader: asyncio.StreamReader, connect: Connect) -> None:
        try:
            server, self._upstream = await connect()
        except OSError:
            self.cut()  # as near as a proxy can come to "connection refused"
            return

        self.up.open(self._upstream)

        async with asyncio.TaskGroup() as group:
            carriers = [group.create_task(direction.run()) for direction in (self.up, self.down)]
            pumps = [
                group.create_task(self._pump_requests(reader)),
                group.create_task(self._pump_replies(server)),
            ]
            await asyncio.wait(pumps)

            if self._state is not _State.OPEN:  # nobody waits for what is still on its way
                for carrier in carriers:
                    carrier.cancel()

    async def _vanish(self, reader: asyncio.StreamReader) -> None:
        """Read what the client sends to nowhere until the black hole is healed."""
        swallowing = asyncio.create_task(self._swallow(reader))

        try:
            await self._healed.wait()
        finally:
            swallowing.cancel()
            await asyncio.wait([swallowing])

    async def _swallow(self, reader: asyncio.StreamReader) -> None:
        while await self._read(reader):
            self._lossy = True

    async def _pump_requests(self, reader: asyncio.StreamReader) -> None:
        while data := await self._read(reader):
            passing: list[bytes] = []
            reached: list[Fault] = []
            lost: Fault | None = None

            for piece in self.dialect.requests(data):
                if self._deaf or self._state is not _State.OPEN:
                    self._lossy = True
                    continue

                hits = self._hits(piece)

                if hits and hits[0].loses == "request":
                    self.counters.lost_requests += 1
                    lost = hits[0]
                    self._deaf = lost.then != "continue"
                    lost.happened.set()
                    continue

                passing.append(piece.data)
                reached += hits

            await self._send_up(b"".join(passing))

            for fault in reached:
                if fault.loses == "nothing":
                    fault.happened.set()

            if lost is not None:
                self._lose_request(lost)

        if self._state is _State.OPEN:
            await self._send_up(self.dialect.rest("client"))
        elif self._state is _State.SILENT:
            await self._healed.wait()

        self.up.send_eof()

    async def _pump_replies(self, reader: asyncio.StreamReader) -> None:
        while data := await self._read(reader):
            passing: list[bytes] = []

            for piece in self.dialect.replies(data):
                if self._state is not _State.OPEN:
                    self._lossy = True
                    continue

                fault = self._fate(piece)

                if fault is not None:
                    half = len(piece.data) // 2 if fault.loses == "half of the reply" else 0
                    passing.append(piece.data[:half])
                    await self._send_down(b"".join(passing))
                    passing.clear()
                    self._swallowing = True
                    self.counters.lost_replies += 1
                    self._lose_reply(fault)
                    fault.happened.set()

                if not self._swallowing:
                    passing.append(piece.data)

            await self._send_down(b"".join(passing))

        if self._state is _State.OPEN:
            await self._send_down(self.dialect.rest("server"))
        elif self._state is _State.SILENT:
            await self._healed.wait()

        self.down.send_eof()

    def _hits(self, piece: RequestPiece) -> list[Fault]:
        if piece.name is None:
            return []

        self.counters.requests += 1
        hits = self.armed.hits(piece.name)

        if piece.answered and not (hits and hits[0].loses == "request"):
            self._unanswered.append(next((fault for fault in hits if fault.loses != "nothing"), None))

        return hits

    def _fate(self, piece: ReplyPiece) -> Fault | None:
        if not piece.begins:
            return None

        self.counters.replies += 1
        self._swallowing = False
        return self._unanswered.popleft() if self._unanswered else None

    def _lose_request(self, fault: Fault) -> None:
        self._lossy = self._lossy or self._deaf

        if fault.then == "cut":
            self.cut()
        elif fault.then == "close":
            self.up.send_eof()  # so that the server answers what came before, and ends

    def _lose_reply(self, fault: Fault) -> None:
        if fault.then == "continue":
            return

        self._lossy = True

        if fault.then == "cut":
            self.cut()
        elif fault.then == "silence":
            self.silence()
        else:
            self._state = _State.ENDED
            self.down.send_eof()
            self.up.send_eof()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        """Read; a reset is passed on as a reset, and seen as an end here."""
        try:
            return await reader.read(_CHUNK)
        except OSError:
            if self._state is _State.OPEN:
                self.cut()

            return b""

    async def _send_up(self, data: bytes) -> None:
        if data:
            self.counters.bytes_to_server += len(data)
            await self.up.send(data)

    async def _send_down(self, data: bytes) -> None:
        if data:
            self.counters.bytes_to_client += len(data)
            await self.down.send(data)

    async def _close(self) -> None:
        if self._writer is None:
            self.client.close()

        writers = [writer for writer in (self._writer, self._upstream) if writer is not None]

        for writer in writers:  # all of them before any wait, which may be cancelled
            writer.close()

        for writer in writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")

    if connection is not None and not writer.transport.is_closing():
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        writer.transport.abort()
