"""The error boundary: handlers that fail, refused handshakes, plain errors, and requests cut at the end."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, FastAPI, Query, WebSocket
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import Receive, Scope, Send

from ws_web import ErrResponse, Settings, SettingsError, WsChatConnectionManager, create_app
from ws_web._error_boundary import ErrorBoundaryMiddleware
from ws_web._origin import DENIAL
from ws_web.testing import AppClient, SocketClosed


class TestErrorBoundary:
    """Failures of handlers."""

    async def test_a_reply_that_had_begun_is_broken_off(self) -> None:
        """Half a reply must not look like a whole one."""
        app = create_app()

        @app.get("/")
        async def endpoint() -> Any:
            async def stream() -> AsyncIterator[Any]:
                yield "half"
                raise ValueError("boom")

            return StreamingResponse(stream())

        async with AppClient(app) as client:
            with pytest.raises(ValueError, match="boom"):
                await client.get("/")

    async def test_its_handler_is_called_all_the_same(self) -> None:
        """It may report errors; a background task that fails is one."""
        app = create_app()
        reported: list[str] = []

        @app.exception_handler(Exception)
        async def report(request: Any, error: Exception) -> JSONResponse:
            reported.append(str(error))
            return JSONResponse({}, 500)

        @app.get("/")
        async def endpoint(tasks: BackgroundTasks) -> int:
            def fail() -> None:
                raise ValueError("boom")

            tasks.add_task(fail)
            return 1

        async with AppClient(app) as client:
            assert (await client.get("/")).data() == 1

        assert reported == ["boom"]

    async def test_a_failing_websocket_is_closed_with_1011(self) -> None:
        """The peer learns that the fault is not its own."""
        app = create_app()

        @app.websocket("/accepted")
        async def accepted(ws: WebSocket) -> None:
            await ws.accept()
            raise ValueError("boom")

        @app.websocket("/refused")
        async def refused(ws: WebSocket) -> None:
            raise ValueError("boom")

        @app.websocket("/closed")
        async def closed(ws: WebSocket) -> None:
            await ws.accept()
            await ws.close(4000)
            raise ValueError("boom")

        async with AppClient(app) as client:
            for path, code in (("/accepted", 1011), ("/closed", 4000)):
                async with client.websocket(path) as socket:
                    with pytest.raises(SocketClosed) as ended:
                        await socket.receive_text()

                assert ended.value.code == code

            with pytest.raises(SocketClosed):
                async with client.websocket("/refused"):
                    pytest.fail("not reached")

    async def test_a_handshake_that_fails_is_answered(self) -> None:
        """Where the server can send one, the reply of the error is that to the handshake."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            raise ValueError("boom")

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        nothing: Any = None
        scope = {
            "type": "websocket",
            "path": "/",
            "headers": [],
            "extensions": {"websocket.http.response": {}},
        }

        with pytest.raises(ValueError, match="boom"):
            await ErrorBoundaryMiddleware(app, handler=lambda *_: JSONResponse({}, 500))(scope, nothing, send)

        assert (sent[0]["type"], sent[0]["status"]) == ("websocket.http.response.start", 500)

    async def test_a_failure_comes_before_the_end(self) -> None:
        """A request that ends while its failure is answered is still that failure."""
        closing = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "websocket.accept"})
            raise ValueError("boom")

        async def send(message: Any) -> None:
            if message["type"] == "websocket.close":
                closing.set()
                await asyncio.sleep(3600)

        nothing: Any = None
        boundary = ErrorBoundaryMiddleware(app, handler=nothing)
        task = asyncio.ensure_future(boundary({"type": "websocket", "path": "/"}, nothing, send))
        await closing.wait()
        task.cancel()

        with pytest.raises(ValueError, match="boom"):
            await task

    async def test_a_peer_that_is_gone_does_not_matter(self) -> None:
        """Closing fails quietly."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "websocket.accept"})
            raise ValueError("boom")

        async def send(message: Any) -> None:
            if message["type"] == "websocket.close":
                raise OSError("gone")

        nothing: Any = None

        with pytest.raises(ValueError, match="boom"):  # for the server, marked as logged
            await ErrorBoundaryMiddleware(app, handler=nothing)(
                {"type": "websocket", "path": "/"}, nothing, send
            )


class Peer:
    """The end of a WebSocket at which a server stands that can answer handshakes."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def open(self, app: Any, path: str, *, can_answer: bool = True, query: bytes = b"") -> list[Any]:
        """Open a WebSocket and return what the application has sent at its end."""
        extensions: Any = {DENIAL: {}} if can_answer else {}
        scope = {
            "type": "websocket",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
            "root_path": "",
            "headers": [(b"host", b"shop"), (b"x-request-id", b"h-1")],
            "client": ("127.0.0.1", 1),
            "server": ("shop", 80),
            "scheme": "ws",
            "subprotocols": [],
            "extensions": extensions,
        }

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            self.sent.append(message)

        await app(scope, receive, send)
        return self.sent


def envelope(sent: list[Any]) -> Any:
    """Return status and envelope of the reply to a handshake."""
    start, body = sent
    assert (start["type"], body["type"]) == (f"{DENIAL}.start", f"{DENIAL}.body")
    found = json.loads(body["body"])
    assert found["request_id"] == "h-1"
    assert dict(start["headers"])[b"x-request-id"] == b"h-1"
    return start["status"], found


class TestHandshakes:
    """A handshake that is refused is answered as HTTP says."""

    @pytest.fixture
    def app(self) -> FastAPI:
        """An application whose WebSockets refuse in every way."""
        app = create_app()
        full = WsChatConnectionManager(limit=0)

        @app.websocket("/closed")
        async def closed(ws: WebSocket) -> None:
            await ws.close(4003, "not you")

        @app.websocket("/number")
        async def number(ws: WebSocket, n: Annotated[int, Query()]) -> None:
            await ws.accept()

        @app.websocket("/refused")
        async def refused(ws: WebSocket) -> None:
            raise ErrResponse(code=4001, status_code=409, msg="sold out")

        @app.websocket("/late")
        async def late(ws: WebSocket, status: int) -> None:
            await ws.accept()
            raise HTTPException(status)

        @app.websocket("/full")
        async def crowded(ws: WebSocket) -> None:
            await full.append("ann", ws, Handler())

        @app.websocket("/full-late")
        async def crowded_late(ws: WebSocket) -> None:
            await ws.accept()
            await full.append("ann", ws, Handler())

        app.mount("/inner", Starlette())
        return app

    async def test_an_unknown_path(self, app: FastAPI) -> None:
        """404, in a mounted application too."""
        for path in ("/nothing", "/inner/nothing"):
            status, found = envelope(await Peer().open(app, path))
            assert (status, found["code"], found["msg"]) == (404, 404, "Not Found")

    async def test_closed_before_it_was_accepted(self, app: FastAPI) -> None:
        """403, with the reason and the close code."""
        status, found = envelope(await Peer().open(app, "/closed"))
        assert (status, found["msg"], found["extra"]) == (403, "not you", {"close_code": 4003})
        assert [m["type"] for m in await Peer().open(app, "/closed", can_answer=False)] == ["websocket.close"]

    async def test_a_handler_that_says_nothing(self, app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
        """500, with the path in the log; it has failed, though it has raised nothing."""

        @app.websocket("/silent")
        async def silent(ws: WebSocket) -> None: ...

        status, found = envelope(await Peer().open(app, "/silent"))
        assert (status, found["code"]) == (500, 500)
        (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert record.getMessage().startswith("WEBSOCKET '/silent' returned without accepting")
        assert await Peer().open(app, "/silent", can_answer=False) == []

    async def test_what_does_not_fit(self, app: FastAPI) -> None:
        """422 with the problems, but without what was sent; 1008 where the server cannot answer."""
        status, found = envelope(await Peer().open(app, "/number", query=b"n=secret"))
        assert (status, found["data"][0]["loc"], found["msg"]) == (422, ["query", "n"], "Invalid Arguments")
        assert "secret" not in str(found)
        (closed,) = await Peer().open(app, "/number", can_answer=False)
        assert (closed["type"], closed["code"]) == ("websocket.close", 1008)

    async def test_a_raised_reply(self, app: FastAPI) -> None:
        """Its status and code."""
        status, found = envelope(await Peer().open(app, "/refused"))
        assert (status, found["code"], found["msg"]) == (409, 4001, "sold out")

    @pytest.mark.parametrize(("status", "code"), [("403", 1008), ("503", 1011)])
    async def test_raised_after_it_was_accepted(
        self, app: FastAPI, status: str, code: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The conversation ends, without a traceback in the log."""
        sent = await Peer().open(app, "/late", query=f"status={status}".encode())
        assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
        assert sent[1]["code"] == code
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]

    async def test_no_room(self, app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
        """503, or 1013 when it was accepted; a limit that is reached is not a failure."""
        status, found = envelope(await Peer().open(app, "/full"))
        assert (status, found["msg"]) == (503, "Too many connections")
        _, closed = await Peer().open(app, "/full-late")
        assert (closed["type"], closed["code"]) == ("websocket.close", 1013)
        (closed,) = await Peer().open(app, "/full", can_answer=False)
        assert (closed["type"], closed["code"]) == ("websocket.close", 1013)
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


class Handler:
    """What a WebSocket manager asks for."""

    async def hello(self, key: Any, ws: Any, count: int) -> None:
        """Return nothing."""

    async def on_message(self, key: Any, ws: Any, message: Any) -> None:
        """Take nothing."""


class TestPlainErrors:
    """Errors that Starlette writes as text get the envelope; what an application wrote stays."""

    @pytest.fixture
    def app(self) -> FastAPI:
        """An application with others in it."""
        app = create_app()
        app.add_middleware(CORSMiddleware, allow_origins=["http://shop"])
        inner = Starlette()

        async def fail(request: Any) -> PlainTextResponse:
            raise ValueError("inside")

        async def own(request: Any) -> PlainTextResponse:
            return PlainTextResponse("Not Found, sorry", 404)

        async def parts(request: Any) -> StreamingResponse:
            async def text() -> AsyncIterator[str]:
                yield "Not Found"
                yield "!"

            return StreamingResponse(text(), 404, media_type="text/plain")

        async def only_get(request: Any) -> PlainTextResponse:
            return PlainTextResponse("Not Allowed", 405, headers={"allow": "GET"})

        async def odd(request: Any) -> PlainTextResponse:
            return PlainTextResponse("", 499)

        inner.add_route("/fail", fail)
        inner.add_route("/own", own)
        inner.add_route("/parts", parts)
        inner.add_route("/get", own, methods=["GET"])
        inner.add_route("/odd", odd)
        app.mount("/inner", inner)
        app.mount("/api", FastAPI())
        return app

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [("GET", "/inner/none", 404), ("POST", "/inner/get", 405), ("GET", "/inner/fail", 500)],
    )
    async def test_of_a_mounted_application(self, app: FastAPI, method: str, path: str, status: int) -> None:
        """Envelope, id and CORS."""
        async with AppClient(app) as client:
            reply = await client.request(method, path, headers={"origin": "http://shop"})

        assert (reply.status_code, reply.error()["code"]) == (status, status)
        assert reply.headers["access-control-allow-origin"] == "http://shop"
        assert (reply.headers.get("allow") is not None) == (status == 405)

    @pytest.mark.parametrize(
        ("path", "text"), [("own", "Not Found, sorry"), ("parts", "Not Found!"), ("odd", "")]
    )
    async def test_other_texts_stay(self, app: FastAPI, path: str, text: str) -> None:
        """Somebody has written them."""
        async with AppClient(app) as client:
            assert (await client.get(f"/inner/{path}")).text == text

    async def test_a_plain_fastapi_keeps_its_form(self, app: FastAPI) -> None:
        """Its clients expect it."""
        async with AppClient(app) as client:
            assert (await client.get("/api/none")).json() == {"detail": "Not Found"}


class TestCut:
    """A request that the server cancels because it stops."""

    @pytest.mark.parametrize("way", ["message", "draining", "other"])
    async def test_it_is_answered(self, way: str) -> None:
        """With 503; what cancels for another reason answers by itself."""
        app = create_app()
        started = asyncio.Event()

        @app.get("/")
        async def endpoint() -> None:
            started.set()
            await asyncio.Event().wait()

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
        serving = asyncio.create_task(app({**scope, "root_path": ""}, asyncio.Event().wait, send))  # type: ignore[arg-type]
        await started.wait()
        app.state.health.draining = way == "draining"
        serving.cancel("Task cancelled, timeout graceful shutdown exceeded" if way == "message" else None)

        with pytest.raises(asyncio.CancelledError):
            await serving

        if way == "other":
            assert sent == []
        else:
            assert (sent[0]["status"], dict(sent[0]["headers"])[b"retry-after"]) == (503, b"1")
            assert b'"code":503' in sent[1]["body"]


class TestSecurityHeaders:
    """Headers that every reply has."""

    async def test_every_reply_has_them(self) -> None:
        """Errors too; what a route sets itself stays."""
        app = create_app(Settings(SECURITY_HEADERS={"Strict-Transport-Security": "max-age=60"}))

        @app.get("/own")
        async def own() -> PlainTextResponse:
            return PlainTextResponse("", headers={"x-frame-options": "SAMEORIGIN"})

        @app.get("/boom")
        async def boom() -> None:
            raise ValueError("inside")

        async with AppClient(app) as client:
            for path in ("/own", "/boom", "/none"):
                reply = await client.get(path)
                assert reply.headers["x-content-type-options"] == "nosniff"
                assert reply.headers["referrer-policy"] == "strict-origin-when-cross-origin"
                assert reply.headers["strict-transport-security"] == "max-age=60"
                wanted = "SAMEORIGIN" if path == "/own" else "DENY"
                assert reply.headers.getlist("x-frame-options") == [wanted]

    async def test_one_is_left_out(self) -> None:
        """By an empty text."""
        app = create_app(Settings(SECURITY_HEADERS={"x-frame-options": ""}))

        async with AppClient(app) as client:
            reply = await client.get("/none")

        assert "x-frame-options" not in reply.headers
        assert reply.headers["x-content-type-options"] == "nosniff"

    @pytest.mark.parametrize("headers", [{"x y": "1"}, {"x": "a\r\nb: c"}, {"x": "é"}])
    def test_what_is_not_a_header(self, headers: dict[str, str]) -> None:
        """It would break every reply."""
        with pytest.raises(SettingsError, match="SECURITY_HEADERS"):
            Settings(SECURITY_HEADERS=headers)
