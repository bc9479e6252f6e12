"""Messages of WebSockets: what peers may send to any handler, and what is sent to them."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from ws_web import Settings, create_app
from ws_web._ws_messages import bad_message, encode
from ws_web.testing import AppClient

HANDSHAKE = (
    "connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip


class Row(tuple[object, ...]):
    """A row, such as those of a database."""

    __slots__ = ()

    def __json_object__(self) -> Mapping[str, object]:
        """Return its columns."""
        return {"id": self[0]}


class TestEncode:
    """What a conversation sends is JSON or text that can be sent."""

    @pytest.mark.parametrize(
        ("message", "text"),
        [
            ({"x": math.nan, "y": [math.inf, -math.inf]}, '{"x":null,"y":[null,null]}'),
            ({"x": "\ud83d"}, '{"x":"\\ud83d"}'),
            ("half \ud83d", "half \\ud83d"),
            ("whole 😀", "whole 😀"),
            ([Row((1,))], '[{"id":1}]'),
            (None, "null"),
        ],
    )
    def test_as_text(self, message: object, text: str) -> None:
        """As in the envelope: no NaN, no half of a surrogate pair, rows with the names of their columns."""
        assert encode(message) == {"type": "websocket.send", "text": text}

    def test_as_bytes(self) -> None:
        """Bytes stay bytes."""
        assert encode(memoryview(b"\xff")) == {"type": "websocket.send", "bytes": b"\xff"}


@pytest.fixture
def app() -> FastAPI:
    """An application whose handlers read with Starlette's own methods."""
    app = create_app(Settings(ACCESS_LOG="off"))

    @app.websocket("/text")
    async def text(ws: WebSocket) -> None:
        await ws.accept()

        async for message in ws.iter_text():
            await ws.send_text(message)

    @app.websocket("/json")
    async def json(ws: WebSocket) -> None:
        await ws.accept()

        async def answer() -> None:
            while True:
                await ws.send_json(await ws.receive_json())

        async with asyncio.TaskGroup() as group:
            group.create_task(answer())

    @app.websocket("/bytes")
    async def data(ws: WebSocket) -> None:
        await ws.accept()
        await ws.receive_bytes()

    @app.websocket("/own")
    async def own(ws: WebSocket) -> None:
        await ws.accept()
        await ws.receive_text()
        raise KeyError("text")

    @app.websocket("/silent")
    async def silent(ws: WebSocket) -> None:
        """Neither accept nor refuse."""

    return app


@pytest.fixture
async def url(app: FastAPI) -> AsyncIterator[str]:
    """Serve it by uvicorn."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, ws="websockets-sansio", log_config=None))
    task = asyncio.create_task(server.serve())

    while not server.started:
        await asyncio.sleep(0.01)

    host, port = server.servers[0].sockets[0].getsockname()[:2]
    yield f"ws://{host}:{port}"
    server.should_exit = True
    await task


class TestBadMessages:
    """A mistake of a peer is its own: the right close code, one line, and no traceback."""

    @pytest.mark.parametrize(
        ("path", "message", "code"),
        [
            ("/text", b"\x00", 1003),
            ("/bytes", "text", 1003),
            ("/json", b"{}", 1003),
            ("/json", "{nope", 1007),
            ("/json", "[" * 100_000, 1007),
            ("/json", "1" * 10_000, 1007),
        ],
    )
    async def test_they_end_the_conversation(
        self, url: str, path: str, message: str | bytes, code: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Handlers of Starlette's kind included."""
        for count in (1, 2):
            async with connect(url + path) as socket:
                await socket.send(message)

                with pytest.raises(ConnectionClosedError) as closed:
                    await socket.recv()

            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == code
            (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
            assert line.endswith(f"closed with {code} ({count} bad messages so far)")
            assert not any(record.exc_info for record in caplog.records)
            caplog.clear()

    async def test_a_failure_of_the_handler_is_its_own(
        self, url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The same exception from elsewhere is 1011, with the traceback."""
        async with connect(f"{url}/own") as socket:
            await socket.send("hello")

            with pytest.raises(ConnectionClosedError) as closed:
                await socket.recv()

        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011
        assert any(record.exc_info for record in caplog.records)

    async def test_halves_of_surrogate_pairs(self, url: str) -> None:
        """A peer can send them in JSON; they go back as the same escape."""
        async with connect(f"{url}/json") as socket:
            await socket.send('{"name": "\\ud83d", "whole": "\\ud83d\\ude00"}')
            assert await socket.recv() == '{"name":"\\ud83d","whole":"😀"}'

    async def test_in_process(self, app: FastAPI) -> None:
        """The test client gets the close code as well."""
        async with AppClient(app) as client, client.websocket("/text") as socket:
            await socket.send_bytes(b"\x00")

            with pytest.raises(Exception, match="1003 another kind of frame"):
                await socket.receive_text()

    def test_only_in_receiving_methods(self) -> None:
        """Nothing else is taken for a mistake of the peer."""
        assert bad_message(ValueError("x")) is None
        assert bad_message(ExceptionGroup("two", [KeyError("text"), KeyError("text")])) is None


async def answer(url: str, path: str, *headers: str) -> int:
    """Ask for a WebSocket, and return the status."""
    # By hand: with uvicorn 0.35 the answer has its length twice, which the client of websockets refuses.
    place = url.removeprefix("ws://")
    host, port = place.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        "\r\n".join([f"GET {path} HTTP/1.1", f"host: {place}", *HANDSHAKE, *headers, "", ""]).encode()
    )
    status = int((await reader.readline()).split()[1])
    writer.close()
    await writer.wait_closed()
    return status


class TestRefusedHandshakes:
    """uvicorn takes an answer to a handshake for none, and says so at each."""

    @pytest.mark.parametrize(
        ("path", "origin", "status"), [("/no", None, 404), ("/text", "https://e.x", 403)]
    )
    async def test_an_answer_is_enough(
        self, url: str, path: str, origin: Any, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Its error is not logged: anybody could fill the log."""
        assert await answer(url, path, *([f"origin: {origin}"] if origin else [])) == status
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]

    async def test_silence_is_logged(self, url: str, caplog: pytest.LogCaptureFixture) -> None:
        """A handler that neither accepts nor refuses is a mistake of the application."""
        assert await answer(url, "/silent") == 500
        assert "WEBSOCKET '/silent' returned without accepting" in caplog.text
        assert "without completing handshake" not in caplog.text
