"""Limits of WebSockets: places per address, user and room; size and rate of messages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket

from ws_core.errors import UsageError
from ws_web import MessageHandler, SocketLimitError, WsChatConnectionManager, create_app
from ws_web._ws_messages import BadMessage, Meter
from ws_web.testing import AppClient, SocketClosed


class Rooms(MessageHandler):
    """Join the room that a message names, and answer."""

    def __init__(self, manager: WsChatConnectionManager) -> None:
        self.manager = manager

    async def on_message(self, key: Any, ws: WebSocket, message: Any) -> None:
        """Join."""
        self.manager.join(key, message)
        await self.manager.send_message(key, f"joined {message}")


def serve(manager: WsChatConnectionManager) -> FastAPI:
    """Return an application with a WebSocket for each key and user."""
    app = create_app()

    @app.websocket("/{key}/{user}")
    async def endpoint(ws: WebSocket, key: str, user: str) -> None:
        await manager.append(key, ws, Rooms(manager), user=user)
        await manager.handle_message(key)

    return app


class TestPlaces:
    """A socket for which there is no room is refused; the others stay."""

    @pytest.mark.parametrize(
        ("limits", "refused", "free"),
        [
            ({"limit": 2}, "c/eve", None),
            ({"limit_per_ip": 2}, "c/eve", "other"),
            ({"limit_per_user": 2}, "c/ann", "c/eve"),
        ],
    )
    async def test_it_is_refused(self, limits: Any, refused: str, free: str | None) -> None:
        """Until one of the others leaves."""
        manager = WsChatConnectionManager(**limits)
        app = serve(manager)
        here = AppClient(app)
        there = AppClient(app, peer="192.0.2.7")

        async with here.websocket("/a/ann"):
            async with here.websocket("/b/ann"):
                with pytest.raises(SocketClosed):
                    async with here.websocket(f"/{refused}"):
                        pytest.fail("not reached")

                if free == "other":
                    async with there.websocket(f"/{refused}") as socket:
                        await socket.send_text("hall")
                        assert await socket.receive_text() == "joined hall"
                elif free is not None:
                    async with here.websocket(f"/{free}") as socket:
                        await socket.send_text("hall")
                        assert await socket.receive_text() == "joined hall"

            async with here.websocket(f"/{refused}") as socket:
                await socket.send_text("hall")
                assert await socket.receive_text() == "joined hall"

        assert manager.statistics().refused == 1
        assert not manager._places._taken

    async def test_a_socket_that_replaces_another(self) -> None:
        """It takes the place of the older one, of its address and user."""
        manager = WsChatConnectionManager(limit=1, limit_per_ip=1, limit_per_user=1)
        client = AppClient(serve(manager))

        async with client.websocket("/a/ann") as first, client.websocket("/a/ann") as second:
            with pytest.raises(SocketClosed):
                await first.receive_text()

            await second.send_text("hall")
            assert await second.receive_text() == "joined hall"

    async def test_a_full_room(self) -> None:
        """The handler's `join` fails, and the peer may come back later."""
        manager = WsChatConnectionManager(limit_per_room=1)
        client = AppClient(serve(manager))

        async with client.websocket("/a/ann") as first, client.websocket("/b/bob") as second:
            for _ in range(2):
                await first.send_text("hall")
                assert await first.receive_text() == "joined hall"

            await second.send_text("hall")

            with pytest.raises(SocketClosed) as closed:
                await second.receive_text()

        assert (closed.value.code, closed.value.reason) == (1013, "the room is full")

    async def test_the_message_names_the_limit(self) -> None:
        """Which, and how large."""
        manager = WsChatConnectionManager(limit_per_room=0)

        socket: Any = SimpleNamespace(scope={"type": "websocket", "headers": [], "client": None})
        await manager.append("a", socket, MessageHandler())

        with pytest.raises(SocketLimitError, match="cannot join room 'hall': all 0 places are taken"):
            manager.join("a", "hall")


class TestMessages:
    """What a peer may send."""

    @pytest.mark.parametrize(("size", "text"), [(5, "123456"), (5, "ééé"), (3, "é" * 2)])
    async def test_too_big(self, size: int, text: str) -> None:
        """Bytes count, not characters: 1009."""
        manager = WsChatConnectionManager(max_message_size=size)
        client = AppClient(serve(manager))

        async with client.websocket("/a/ann") as socket:
            await socket.send_text("é" if size > 2 else "x")
            await socket.receive_text()
            await socket.send_text(text)

            with pytest.raises(SocketClosed) as closed:
                await socket.receive_text()

        assert closed.value.code == 1009
        assert manager.statistics().bad_frames == 1

    async def test_too_many(self) -> None:
        """A peer that sends more than its rate is closed with 1008."""
        manager = WsChatConnectionManager(message_rate=3)
        client = AppClient(serve(manager))

        async with client.websocket("/a/ann") as socket:
            for _ in range(10):
                await socket.send_text("hall")

            with pytest.raises(SocketClosed) as closed:
                for _ in range(10):
                    await socket.receive_text()

        assert (closed.value.code, closed.value.reason) == (1008, "more than 3 messages a second")

    def test_the_meter(self) -> None:
        """It fills again with time, up to one second's messages."""
        now = [0.0]
        meter = Meter(2.0, lambda: now[0])
        meter.count()
        meter.count()

        with pytest.raises(BadMessage):
            meter.count()

        now[0] = 0.5
        meter.count()
        now[0] = 100.0
        meter.count()
        meter.count()

        with pytest.raises(BadMessage):
            meter.count()

    @pytest.mark.parametrize("rate", [0, -1, float("nan")])
    def test_what_is_not_a_rate(self, rate: float) -> None:
        """Refused when the manager is made."""
        with pytest.raises(UsageError, match="message_rate must be a positive number"):
            WsChatConnectionManager(message_rate=rate)
