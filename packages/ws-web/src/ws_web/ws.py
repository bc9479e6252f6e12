"""WebSocket conversations: named connections, heartbeats, rooms, broadcast across processes.

Each socket has exactly one reader and one writer task and a bounded queue between the senders
and the writer. Sending never waits for a peer: a silent, slow or raising peer is closed and
forgotten, and nobody else notices.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, Self

from starlette import status
from starlette.websockets import WebSocket

from ws_core.errors import NotReadyError, UsageError
from ws_web._ws_conversation import Conversation, Counters, Overflow, Rules
from ws_web._ws_handler import EventBus, MessageHandler
from ws_web._ws_limits import Places
from ws_web._ws_messages import RECEIVE_FUNCTIONS, encode, pack, unpack

__all__ = ("EventBus", "ManagerStatistics", "MessageHandler", "WsChatConnectionManager")


@dataclass(frozen=True, slots=True)
class ManagerStatistics:
    """
    A snapshot of a manager.

    Args:
        connections: Sockets in conversation.
        rooms: Rooms with at least one member.
        queued: Messages that wait for their writers.
        sent: Messages that were handed to sockets so far.
        dropped: Messages dropped because a queue was full.
        evicted: Sockets closed because their peer did not read.
        bad_frames: Messages of a wrong kind or size, too many of them, or without the JSON that was expected.
        refused: Sockets for which a limit left no room.
    """

    connections: int
    rooms: int
    queued: int
    sent: int
    dropped: int
    evicted: int
    bad_frames: int = 0
    refused: int = 0


for _public in (EventBus, MessageHandler):
    _public.__module__ = __name__


class WsChatConnectionManager:
    """
    Keep the WebSockets of a service by key, and send to them.

    Args:
        limit: How many sockets there may be at once; None for no limit.
        heartbeat_timeout: Seconds of silence after which ``hello`` is called, for a sign of life.
        timeout_count: After how many silent heartbeats in a row the socket is closed.
        queue_size: How many messages may wait for one slow peer.
        overflow: What happens to a peer whose queue is full: ``"close"`` it with 1013, or
            ``"drop_oldest"`` or ``"drop_newest"`` message.
        send_timeout: Seconds that handing one message to a socket may take before it is closed; looked at
            four times in that time.
        limit_per_ip: How many sockets one address may have; None for no limit.
        limit_per_user: How many sockets one user may have, see `append`.
        limit_per_room: How many members a room may have.
        max_message_size: Bytes that a message of a peer may have; a larger one closes with 1009.
        message_rate: Messages that a peer may send in a second; more close with 1008. None for no limit.
        bus: An event bus; broadcasts then reach the sockets of every process. The manager must be
            started (``async with manager``) to receive them.
        channel: The tag on the bus; managers with the same tag form one.

    Example:
        ```python
        from fastapi import WebSocket

        from ws_web import MessageHandler, WsChatConnectionManager, create_app
        from ws_web.testing import AppClient

        app = create_app()
        manager = WsChatConnectionManager(limit=1000)


        class Echo(MessageHandler):
            async def on_message(self, key, ws, message):
                await manager.send_message(key, f"{key} said {message}")


        @app.websocket("/ws/{user}")
        async def chat(ws: WebSocket, user: str):
            await manager.append(user, ws, Echo())
            await manager.handle_message(user)


        async with AppClient(app) as client, client.websocket("/ws/ann") as socket:
            await socket.send_text("hi")
            assert await socket.receive_text() == "ann said hi"
        ```
    """

    def __init__(
        self,
        limit: int | None = None,
        heartbeat_timeout: float = 10,
        timeout_count: int = 3,
        *,
        queue_size: int = 100,
        overflow: Overflow = "close",
        send_timeout: float = 10.0,
        bus: EventBus | None = None,
        channel: str = "ws_web.ws",
        limit_per_ip: int | None = None,
        limit_per_user: int | None = None,
        limit_per_room: int | None = None,
        max_message_size: int | None = 1024 * 1024,
        message_rate: float | None = None,
    ) -> None:
        if overflow not in ("close", "drop_newest", "drop_oldest"):
            raise UsageError(f"overflow must be 'close', 'drop_oldest' or 'drop_newest', not {overflow!r}")

        if queue_size < 1:
            raise UsageError(f"queue_size must be at least 1, not {queue_size}")

        if message_rate is not None and not message_rate > 0:
            raise UsageError(f"message_rate must be a positive number, not {message_rate!r}")

        self._rules = Rules(
            heartbeat_timeout,
            timeout_count,
            queue_size,
            overflow,
            send_timeout,
            max_message_size,
            message_rate,
        )
        self._counters = Counters()
        self._places = Places(limit, limit_per_ip, limit_per_user, limit_per_room)
        self._sweep: asyncio.TimerHandle | None = None
        self._bus = bus
        self._channel = channel
        self._listening = False
        self._connections: dict[Any, Conversation] = {}  # Any: keys are the application's
        self._rooms: defaultdict[str, set[Conversation]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._connections)

    def __contains__(self, key: object) -> bool:
        return key in self._connections

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Listen to the bus, if there is one."""
        if self._bus is not None and not self._listening:
            await _settle(self._bus.add_listener(self._channel, self._on_event))
            self._listening = True

    async def close(self, code: int = status.WS_1012_SERVICE_RESTART) -> None:
        """
        End every conversation and stop listening to the bus.

        Args:
            code: The close code; after 1012 clients come back.
        """
        for connection in self._connections.values():
            connection.end(code)

        if self._bus is not None and self._listening:
            self._listening = False
            await _settle(self._bus.remove_listener(self._channel, self._on_event))

    async def append(
        self, key: Any, ws: WebSocket, handler: Any, *, user: Any = None
    ) -> None:  # Any: see MessageHandler
        """
        Take a socket into the conversation; a socket of the same key is closed and replaced.

        Args:
            key: The name to send to, such as a user id.
            ws: The socket; it is accepted by `handle_message`.
            handler: Anything with ``hello`` and ``on_message``, such as a `MessageHandler`.
            user: Whose socket it is, for ``limit_per_user``; by default the key is the user.

        Raises:
            SocketLimitError: A limit is reached. If you let it pass, the handshake is answered with 503.
            UsageError: The handler lacks a method.
        """
        if not self._connections and self._sweep is not None:
            self._sweep.cancel()  # of an earlier life, perhaps on another loop
            self._sweep = None

        for name in ("hello", "on_message"):
            if not callable(getattr(handler, name, None)):
                raise UsageError(f"the handler of WebSocket {key!r} has no method {name}")

        before = self._connections.get(key)
        replaced = None if before is None else before.place
        place = self._places.take(key, ws, key if user is None else user, replaced)

        if before is not None:
            self._forget(before)
            before.end(status.WS_1000_NORMAL_CLOSURE, "replaced by a newer connection")

        ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self._connections[key] = Conversation(key, ws, handler, place, self._rules, self._counters, ended)

    async def handle_message(self, key: Any, receive_func: str = "receive_text") -> None:  # Any: see append
        """
        Accept the socket and converse until the peer leaves, falls silent, or one side ends it.

        Args:
            key: The name under which the socket was appended.
            receive_func: ``receive_text``, ``receive_bytes`` or ``receive_json``.

        Raises:
            UsageError: Nothing was appended under the key, or there is no such receive function.
        """
        connection = self._connections.get(key)

        if connection is None:
            raise UsageError(f"no WebSocket {key!r} was appended: call append first")

        try:
            if receive_func not in RECEIVE_FUNCTIONS:
                raise UsageError(
                    f"receive_func must name a receive method of WebSocket, not {receive_func!r}"
                )

            await connection.ws.accept()

            if self._sweep is None:
                self._sweep_slow()

            await connection.converse(receive_func)
        finally:
            self._forget(connection)

    def get_client(self, key: Any) -> WebSocket | None:  # Any: see append
        """Return the socket of a key, or None."""
        connection = self._connections.get(key)
        return connection.ws if connection else None

    async def send_message(self, key: Any, message: object) -> bool:  # Any: see append
        """
        Send to one socket of this process, without waiting for its peer.

        Args:
            key: The name under which the socket was appended.
            message: A str is sent as text, bytes as bytes, anything else as JSON.

        Returns:
            Whether the message was queued; False when there is no such socket or no room.
        """
        connection = self._connections.get(key)
        return connection is not None and connection.enqueue(encode(message))

    async def broadcast(
        self, message: object, *, room: str | None = None, exclude: Collection[Any] = ()
    ) -> int:  # Any: see append
        """
        Send to all sockets, or to those of one room; through the bus to those of every process.

        Args:
            message: As for `send_message`; written to JSON once, however many sockets there are.
            room: Only to the members of this room.
            exclude: Keys that do not get the message.

        Returns:
            How many sockets of this process it was queued for; with a bus 0, since the message
            comes back through the bus to this process too.

        Raises:
            NotReadyError: There is a bus, but the manager was not started.
        """
        frame = encode(message)

        if self._bus is None:
            return self._deliver(frame, room, exclude)

        if not self._listening:
            raise NotReadyError(
                "the WebSocket manager has a bus but is not started: use `async with manager`"
            )

        await self._bus.publish(self._channel, pack(frame), room=room, exclude=list(exclude))
        return 0

    def join(self, key: Any, room: str) -> None:  # Any: see append
        """
        Put a socket into a room.

        Raises:
            UsageError: There is no such socket.
            SocketLimitError: The room is full.
        """
        connection = self._connections.get(key)

        if connection is None:
            raise UsageError(f"no WebSocket {key!r} can join room {room!r}: it is not connected")

        self._places.check_room(key, room, self._rooms.get(room, ()), connection)
        connection.rooms.add(room)
        self._rooms[room].add(connection)

    def leave(self, key: Any, room: str) -> None:  # Any: see append
        """Take a socket out of a room; nothing happens when it is not there."""
        connection = self._connections.get(key)

        if connection is not None:
            connection.rooms.discard(room)
            self._leave(connection, room)

    def members(self, room: str) -> set[Any]:  # Any: see append
        """Return the keys in a room, of this process."""
        return {connection.key for connection in self._rooms.get(room, ())}

    def _sweep_slow(self) -> None:
        """Evict the sockets that have not taken a message for the send timeout, and look again later."""
        loop = asyncio.get_running_loop()
        limit = loop.time() - self._rules.send_timeout

        for connection in self._connections.values():
            if connection.sending_since is not None and connection.sending_since <= limit:
                connection.evict()

        busy = bool(self._connections)
        self._sweep = loop.call_later(self._rules.send_timeout / 4, self._sweep_slow) if busy else None

    async def _on_event(
        self, packed: Mapping[str, str], *, room: str | None, exclude: Collection[Any]
    ) -> None:
        """Deliver a broadcast that came through the bus."""
        self._deliver(unpack(packed), room, exclude)

    def _deliver(self, frame: Mapping[str, Any], room: str | None, exclude: Collection[Any]) -> int:
        targets = self._connections.values() if room is None else self._rooms.get(room, ())
        return sum(c.enqueue(frame) for c in list(targets) if c.key not in exclude)

    def _forget(self, connection: Conversation) -> None:
        if self._connections.get(connection.key) is connection:
            del self._connections[connection.key]
            self._places.leave(connection.place)

        for room in connection.rooms:
            self._leave(connection, room)

        connection.rooms.clear()

    def _leave(self, connection: Conversation, room: str) -> None:
        members = self._rooms.get(room)

        if members is not None:
            members.discard(connection)

            if not members:
                del self._rooms[room]

    def statistics(self) -> ManagerStatistics:
        """Return a snapshot."""
        return ManagerStatistics(
            connections=len(self._connections),
            rooms=len(self._rooms),
            queued=sum(len(connection.queue) for connection in self._connections.values()),
            sent=self._counters.sent,
            dropped=self._counters.dropped,
            evicted=self._counters.evicted,
            bad_frames=self._counters.bad_frames,
            refused=self._places.refused,
        )


async def _settle(result: object) -> None:
    """Await what a bus returned, if it is to be awaited."""
    if isawaitable(result):
        await result
