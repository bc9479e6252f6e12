"""WebSocket conversations: heartbeats, rooms, broadcast, and peers that misbehave."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from tests.web._sockets import SilentSocket, StuckSocket, conversing, settle
from ws_core.errors import NotReadyError
from ws_web import MessageHandler, WsChatConnectionManager, create_app
from ws_web.testing import AppClient, SocketClosed


class TestSending:
    """Sending never waits for a peer."""

    @pytest.mark.parametrize(
        ("message", "frame"),
        [
            ("text", {"text": "text"}),
            (b"bytes", {"bytes": b"bytes"}),
            (bytearray(b"x"), {"bytes": b"x"}),
            ({"a": [1]}, {"text": '{"a":[1]}'}),
            (7, {"text": "7"}),
        ],
    )
    async def test_kinds_of_messages(self, message: Any, frame: dict[str, object]) -> None:
        """Text, bytes, or JSON of anything else."""
        manager, ws = WsChatConnectionManager(), StuckSocket(stuck=False)

        async with conversing(manager, "a", ws):
            assert await manager.send_message("a", message)
            await settle()

        assert ws.sent == [{"type": "websocket.send", **frame}]
        assert manager.statistics().sent == 1

    async def test_to_nobody(self) -> None:
        """An unknown key is False, as in the original."""
        assert not await WsChatConnectionManager().send_message("nobody", "x")

    async def test_a_peer_that_does_not_read_is_closed(self) -> None:
        """When its queue is full; the others get everything, and the sender never waits."""
        manager = WsChatConnectionManager(queue_size=3)
        stuck, good = StuckSocket(), StuckSocket(stuck=False)

        async with conversing(manager, "stuck", stuck) as task, conversing(manager, "good", good):
            for n in range(10):
                await manager.broadcast(n)
                await settle()

            await task
            assert [frame["text"] for frame in good.sent] == [str(n) for n in range(10)]
            assert "stuck" not in manager

        assert stuck.closed == 1013
        assert manager.statistics().evicted == 1

    async def test_a_send_that_hangs_is_given_up(self) -> None:
        """After send_timeout the peer is closed, even when nothing more is sent."""
        manager = WsChatConnectionManager(send_timeout=0.01)
        ws = StuckSocket()

        async with conversing(manager, "a", ws) as task:
            await manager.send_message("a", "x")
            await task

        assert ws.closed == 1013

    @pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("closed"), WebSocketDisconnect(1006)])
    async def test_a_raising_socket_hurts_nobody(self, error: Any) -> None:
        """Its conversation ends, the broadcast goes on."""
        manager = WsChatConnectionManager()
        bad, good = StuckSocket(error=error), StuckSocket(stuck=False)

        async with conversing(manager, "bad", bad) as task, conversing(manager, "good", good):
            assert await manager.broadcast("x") == 2
            await task
            assert await manager.broadcast("y") == 1
            await settle()
            assert len(good.sent) == 2

    @pytest.mark.parametrize(("overflow", "kept"), [("drop_newest", "01"), ("drop_oldest", "34")])
    async def test_dropping_policies(self, overflow: Any, kept: str) -> None:
        """The queue keeps the oldest or the newest messages."""
        manager = WsChatConnectionManager(queue_size=2, overflow=overflow)
        ws = StuckSocket(stuck=False)
        await manager.append("a", ws, MessageHandler())
        results = [await manager.send_message("a", str(n)) for n in range(5)]
        assert manager.statistics().queued == 2
        task = asyncio.create_task(manager.handle_message("a"))
        await settle()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert "".join(frame["text"] for frame in ws.sent) == kept
        assert results == [True, True, *[overflow == "drop_oldest"] * 3]
        assert manager.statistics().dropped == 3

    async def test_a_hanging_close_is_given_up(self) -> None:
        """A peer that does not answer the close frame cannot keep us."""

        class Endless(SilentSocket):
            async def close(self, code: Any, reason: Any) -> None:
                await self.never.wait()

        manager = WsChatConnectionManager(send_timeout=0.01)

        async with conversing(manager, "a", Endless()) as task:
            await manager.close()
            await task

        assert len(manager) == 0

    async def test_nothing_is_sent_to_an_ended_conversation(self) -> None:
        """Between its end and its removal."""
        manager = WsChatConnectionManager()
        await manager.append("a", StuckSocket(), MessageHandler())
        await manager.close()
        assert not await manager.send_message("a", "x")


class TestRooms:
    """Groups of sockets."""

    async def test_rooms_and_exclusion(self) -> None:
        """Only members get it, except those that are left out."""
        manager = WsChatConnectionManager()
        sockets = {key: StuckSocket(stuck=False) for key in "abc"}

        for key, ws in sockets.items():
            await manager.append(key, ws, MessageHandler())

        tasks = [asyncio.create_task(manager.handle_message(key)) for key in sockets]
        await settle()
        manager.join("a", "red")
        manager.join("b", "red")
        manager.join("b", "blue")
        assert manager.members("red") == {"a", "b"}
        assert await manager.broadcast("1", room="red") == 2
        assert await manager.broadcast("2", room="red", exclude=["a"]) == 1
        assert await manager.broadcast("3", room="nowhere") == 0
        manager.leave("b", "red")
        manager.leave("b", "never joined")
        manager.leave("nobody", "red")
        assert await manager.broadcast("4", room="red") == 1
        await settle()
        got = {key: "".join(frame["text"] for frame in ws.sent) for key, ws in sockets.items()}
        assert got == {"a": "14", "b": "12", "c": ""}
        assert manager.statistics().rooms == 2
        await manager.close()
        await asyncio.gather(*tasks)
        assert manager.members("red") == set()
        assert {ws.closed for ws in sockets.values()} == {1012}


class Bus:
    """An event bus in memory: JSON goes through it, to listeners of several managers."""

    def __init__(self, *, awaitable: bool) -> None:
        self.listeners: list[tuple[str, Any]] = []
        self.awaitable = awaitable

    def _done(self) -> Any:
        return asyncio.sleep(0) if self.awaitable else None

    def add_listener(self, tag: str, listener: Callable[..., Any]) -> Any:
        """Listen."""
        self.listeners.append((tag, listener))
        return self._done()

    def remove_listener(self, tag: str, listener: Callable[..., Any]) -> Any:
        """Stop listening."""
        self.listeners.remove((tag, listener))
        return self._done()

    async def publish(self, tag: str, /, *args: Any, **kwargs: Any) -> None:
        """Deliver to everybody, as JSON would arrive."""
        args, kwargs = json.loads(json.dumps([args, kwargs]))

        for listened, listener in self.listeners:
            if listened == tag:
                await listener(*args, **kwargs)


class TestBus:
    """Broadcast across processes."""

    @pytest.mark.parametrize("awaitable", [False, True])
    async def test_every_manager_hears_it_once(self, awaitable: bool) -> None:
        """Text, bytes, rooms and exclusions come through; the own process is served by the bus too."""
        bus = Bus(awaitable=awaitable)

        async with WsChatConnectionManager(bus=bus) as one, WsChatConnectionManager(bus=bus) as two:
            await one.start()
            here, there = StuckSocket(stuck=False), StuckSocket(stuck=False)

            async with conversing(one, "here", here), conversing(two, "there", there):
                two.join("there", "red")
                assert await one.broadcast("text") == 0
                await one.broadcast(b"\x00\xff", room="red")
                await two.broadcast({"a": 1}, exclude=["there"])
                await settle()

            assert [frame.get("text") for frame in here.sent] == ["text", '{"a":1}']
            assert [frame.get("bytes") or frame["text"] for frame in there.sent] == ["text", b"\x00\xff"]

        assert bus.listeners == []

    async def test_not_started(self) -> None:
        """The message says how."""
        with pytest.raises(NotReadyError, match="async with manager"):
            await WsChatConnectionManager(bus=Bus(awaitable=False)).broadcast("x")


class TestPeers:
    """What peers send."""

    @pytest.mark.parametrize("count", [150, 10_000])
    async def test_many_messages_at_once(self, count: int) -> None:
        """A peer that reads is answered, however many messages it has sent."""
        app = create_app()
        manager = WsChatConnectionManager()

        class Echo(MessageHandler):
            async def on_message(self, key: Any, ws: Any, message: Any) -> None:
                await manager.send_message(key, message)

        @app.websocket("/ws")
        async def endpoint(ws: WebSocket) -> None:
            await manager.append("a", ws, Echo())
            await manager.handle_message("a")

        async with AppClient(app) as client, client.websocket("/ws") as socket:
            for number in range(count):
                await socket.send_text(str(number))

            for number in range(count):
                assert await socket.receive_text() == str(number)

        assert manager.statistics().evicted == 0

    @pytest.mark.parametrize(
        ("receive", "kind", "sent", "code"),
        [
            ("receive_text", "bytes", b"x", 1003),
            ("receive_bytes", "text", "x", 1003),
            ("receive_json", "bytes", b"{}", 1003),
            ("receive_json", "text", "{broken", 1007),
            ("receive_json", "text", "[" * 100_000, 1007),
        ],
    )
    async def test_bad_frames(
        self, caplog: pytest.LogCaptureFixture, receive: str, kind: str, sent: Any, code: int
    ) -> None:
        """They end the conversation with one counted line and no traceback."""
        app = create_app()
        manager = WsChatConnectionManager()

        @app.websocket("/ws")
        async def endpoint(ws: WebSocket) -> None:
            await manager.append("a", ws, MessageHandler())
            await manager.handle_message("a", receive)

        async with AppClient(app) as client, client.websocket("/ws") as socket:
            await (socket.send_bytes(sent) if kind == "bytes" else socket.send_text(sent))

            with pytest.raises(SocketClosed) as closed:
                await socket.receive_text()

        assert closed.value.code == code
        assert manager.statistics().bad_frames == 1
        (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert f"closed with {code} (1 bad frames so far)" in record.getMessage()
        assert record.exc_info is None
