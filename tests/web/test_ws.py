"""WebSocket conversations: heartbeats, rooms, broadcast, and peers that misbehave."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from ws_core.errors import NotReadyError, UsageError
from ws_web import MessageHandler, SocketLimitError, WsChatConnectionManager, create_app
from ws_web.testing import AppClient, SocketClosed


class Recorder(MessageHandler):
    """Note what happens, and answer on request."""

    def __init__(self, manager: Any = None) -> None:
        self.manager = manager
        self.heard: list[Any] = []
        self.hellos: list[tuple[Any, int]] = []

    async def hello(self, key: Any, ws: Any, count: int) -> None:
        """Greet at the start, as a client would like."""
        self.hellos.append((key, count))

        if count == 0:
            await ws.send_text("hello")

    async def on_message(self, key: Any, ws: Any, message: Any) -> None:
        """Echo through the manager; fail when asked to."""
        self.heard.append((key, message))

        if message == "fail":
            raise ValueError("asked to")

        if self.manager is not None:
            await self.manager.send_message(key, f"{key}: {message}")


def served(manager: Any, handler: Any = None, receive: str = "receive_text") -> Any:
    """Return an application whose sockets talk through a manager."""
    app = create_app()
    handler = handler or Recorder(manager)

    @app.websocket("/{key}")
    async def endpoint(ws: WebSocket, key: str) -> None:
        try:
            await manager.append(key, ws, handler)
        except SocketLimitError:
            await ws.close(1013)
            return

        await manager.handle_message(key, receive)

    return AppClient(app)


class _StuckSocket:
    """A WebSocket whose peer reads nothing: sending blocks for ever."""

    client_state = application_state = None

    def __init__(self, *, stuck: bool = True, error: Any = None) -> None:
        self.sent: list[Any] = []
        self.closed = None
        self.accepted = False
        self.stuck = stuck
        self.error = error
        self.never = asyncio.Event()

    async def accept(self) -> None:
        """Accept."""
        self.accepted = True

    async def receive(self) -> Any:
        """Stay silent."""
        await self.never.wait()

    async def send(self, message: Any) -> None:
        """Block, raise or note."""
        if self.error is not None:
            raise self.error

        if self.stuck:
            await self.never.wait()

        self.sent.append(message)

    async def close(self, code: Any, reason: Any) -> None:
        """Take the close frame."""
        self.closed = code


StuckSocket: Any = _StuckSocket  # it stands in for a WebSocket, whose type it does not have


@asynccontextmanager
async def conversing(manager: Any, key: Any, ws: Any, handler: Any = None) -> AsyncIterator[Any]:
    """Run a conversation over a socket of the test's own."""
    await manager.append(key, ws, handler or MessageHandler())
    task = asyncio.create_task(manager.handle_message(key))
    await settle()

    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settle() -> None:
    """Let every task that can run, run."""
    for _ in range(20):
        await asyncio.sleep(0)


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

        class Endless(_StuckSocket):
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
