"""One conversation: heartbeats, messages of both sides, and how it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.websockets import WebSocketDisconnect

from tests.web._sockets import Recorder, StuckSocket, conversing, served, settle
from ws_core.errors import UsageError
from ws_web import MessageHandler, WsChatConnectionManager
from ws_web.testing import SocketClosed


class TestConversation:
    """The life of one socket."""

    async def test_hello_message_answer_goodbye(self) -> None:
        """The first hello has the key, the socket and 0: the original called it wrongly."""
        manager = WsChatConnectionManager()
        handler = Recorder(manager)
        client = served(manager, handler)

        async with client.websocket("/ann") as socket:
            assert await socket.receive_text() == "hello"
            await socket.send_text("hi")
            assert await socket.receive_text() == "ann: hi"
            assert len(manager) == 1
            assert "ann" in manager
            assert manager.get_client("ann") is not None

        assert (len(manager), manager.get_client("ann")) == (0, None)
        assert handler.hellos == [("ann", 0)]
        assert handler.heard == [("ann", "hi")]

    async def test_no_messages_in_a_diagnosed_traceback(self) -> None:
        """A log that shows variables does not have what waits for a slow peer."""
        manager = WsChatConnectionManager()

        async with conversing(manager, "k", StuckSocket()):
            await manager.send_message("k", "hunter2 taken")
            await manager.send_message("k", "hunter2 queued")
            assert "hunter2" not in repr(manager._connections)

    async def test_static_methods_do_as_handlers(self) -> None:
        """As in the original, the class itself may be the handler."""

        class Static:
            @staticmethod
            async def hello(key: Any, ws: Any, count: int) -> None:
                await ws.send_text(f"hello {key}" * (count == 0))

            @staticmethod
            async def on_message(key: Any, ws: Any, message: Any) -> None:
                await ws.send_json({"got": [key, message]})

        async with served(WsChatConnectionManager(), Static).websocket("/ann") as socket:
            assert await socket.receive_text() == "hello ann"
            await socket.send_text("x")
            assert await socket.receive_json() == {"got": ["ann", "x"]}

    async def test_bytes_and_json(self) -> None:
        """The receive function chooses what the handler gets."""
        handler = Recorder()

        async with served(WsChatConnectionManager(), handler, "receive_bytes").websocket("/a") as socket:
            await socket.send_bytes(b"x")
            await settle()

        async with served(WsChatConnectionManager(), handler, "receive_json").websocket("/b") as socket:
            await socket.send_json([1])
            await settle()

        assert handler.heard == [("a", b"x"), ("b", [1])]

    async def test_silence_is_asked_about_and_then_ended(self) -> None:
        """Hello counts the silent heartbeats; a message begins the count anew."""
        manager = WsChatConnectionManager(heartbeat_timeout=0.01, timeout_count=3)
        handler = Recorder()

        async with served(manager, handler).websocket("/a") as socket:
            assert await socket.receive_text() == "hello"

            with pytest.raises(SocketClosed) as ended:
                await socket.receive_text()

        assert (ended.value.code, ended.value.reason) == (1000, "no sign of life")
        assert handler.hellos == [("a", 0), ("a", 1), ("a", 2)]
        assert len(manager) == 0

    async def test_a_raising_handler_ends_its_own_conversation_only(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The original leaked the connection."""
        manager = WsChatConnectionManager()
        client = served(manager)

        async with client.websocket("/a") as first, client.websocket("/b") as second:
            await first.receive_text()
            await second.receive_text()
            await first.send_text("fail")

            with pytest.raises(SocketClosed) as ended:
                await first.receive_text()

            assert ended.value.code == 1011
            assert "WebSocket 'a' failed" in caplog.text
            assert "a" not in manager
            await second.send_text("still here")
            assert await second.receive_text() == "b: still here"

    async def test_a_raising_hello(self) -> None:
        """Nothing is left behind."""

        class Rude(MessageHandler):
            async def hello(self, key: Any, ws: Any, count: int) -> None:
                raise ValueError("rude")

        manager = WsChatConnectionManager()

        async with served(manager, Rude()).websocket("/a") as socket:
            with pytest.raises(SocketClosed):
                await socket.receive_text()

        assert len(manager) == 0

    async def test_a_handler_that_meets_a_gone_peer(self, caplog: pytest.LogCaptureFixture) -> None:
        """A WebSocketDisconnect from the handler's own sending is not a failure."""

        class Sender(MessageHandler):
            async def hello(self, key: Any, ws: Any, count: int) -> None:
                raise WebSocketDisconnect(1001)

        ws = StuckSocket()
        manager = WsChatConnectionManager()

        async with conversing(manager, "a", ws, Sender()) as task:
            await task

        assert ws.closed == 1001
        assert "failed" not in caplog.text

    async def test_the_same_key_replaces(self) -> None:
        """The older socket is closed, its end does not remove the newer one."""
        manager = WsChatConnectionManager(limit=1)
        client = served(manager)

        async with client.websocket("/a") as old:
            await old.receive_text()

            async with client.websocket("/a") as new:
                await new.receive_text()

                with pytest.raises(SocketClosed) as ended:
                    await old.receive_text()

                assert ended.value.reason == "replaced by a newer connection"
                await settle()
                assert await manager.send_message("a", "to the new one")
                assert await new.receive_text() == "to the new one"

    async def test_the_limit(self) -> None:
        """The new socket is refused, the present ones stay."""
        manager = WsChatConnectionManager(limit=1)
        client = served(manager)

        async with client.websocket("/a") as first:
            await first.receive_text()

            with pytest.raises(SocketClosed):
                async with client.websocket("/b"):
                    pytest.fail("not reached")

            await first.send_text("x")
            assert await first.receive_text() == "a: x"

        async with client.websocket("/b") as socket:
            assert await socket.receive_text() == "hello"

    async def test_cancelled_conversations_leave_nothing(self) -> None:
        """A server that goes down cancels; the key is free again."""
        manager = WsChatConnectionManager()
        ws = StuckSocket()

        async with conversing(manager, "a", ws) as task:
            manager.join("a", "room")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert len(manager) == 0
            assert manager.statistics().rooms == 0

        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not any("reader" in name or "writer" in name for name in names)

    async def test_misuse(self) -> None:
        """The messages name the socket and the remedy."""
        manager = WsChatConnectionManager()

        with pytest.raises(UsageError, match="no WebSocket 'x' was appended: call append first"):
            await manager.handle_message("x")

        with pytest.raises(UsageError, match="'x' has no method hello"):
            await manager.append("x", StuckSocket(), object())

        with pytest.raises(UsageError, match="it is not connected"):
            manager.join("x", "room")

        await manager.append("x", StuckSocket(), MessageHandler())

        with pytest.raises(UsageError, match="receive_func"):
            await manager.handle_message("x", "receive_nothing")

        assert len(manager) == 0

        with pytest.raises(UsageError, match="overflow"):
            WsChatConnectionManager(overflow="explode")  # type: ignore[arg-type]  # the point of the test

        with pytest.raises(UsageError, match="queue_size"):
            WsChatConnectionManager(queue_size=0)
