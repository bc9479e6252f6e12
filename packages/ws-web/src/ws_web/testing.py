"""Test an application in process: a client that runs its lifespan and knows the envelope.

Nothing but the standard library is needed, and no thread: the application runs in the event loop
of the test, so that it shares clocks, context variables and fixtures with it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote, unquote, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Scope

from ws_web._error_boundary import is_logged
from ws_web._test_overrides import override, rolled_back

__all__ = ("AppClient", "Reply", "SocketClosed", "TestSocket", "override", "rolled_back")

# Any below: JSON values, and ASGI's own message type.

for _public in (override, rolled_back):
    _public.__module__ = __name__

HeaderItems = Mapping[str, str] | Sequence[tuple[str, str]]

_SENT_AS_IT_IS = "".join(map(chr, range(0x21, 0x7F)))  # of a path and a query; all else is encoded


@dataclass(frozen=True, slots=True)
class Reply:
    """
    The reply to one request.

    Args:
        status_code: The HTTP status.
        headers: The headers, by name in any case.
        content: The body.
        failure: The error of the application that was answered by a status of 500.
    """

    status_code: int
    headers: Headers
    content: bytes
    failure: Exception | None = field(default=None, repr=False, compare=False)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode()

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.content)

    def envelope(self) -> dict[str, Any]:
        """
        Return the envelope, having checked its shape and that it carries the id of the header.

        Raises:
            AssertionError: The reply is not an envelope.
        """
        body = self.json()
        names = {"code", "data", "msg", "request_id", "extra"}
        assert isinstance(body, dict), f"not an envelope: {self.text}"
        assert set(body) == names, f"not an envelope: {self.text}"
        assert body["request_id"] == self.headers.get("x-request-id", ""), (
            f"the body says request {body['request_id']}, the header {self.headers.get('x-request-id')}"
        )
        return body

    def data(self) -> Any:
        """
        Return the data of a successful envelope.

        Raises:
            AssertionError: The reply is not an envelope, or its code is not 0.
        """
        body = self.envelope()

        if body["code"] != 0:
            raise AssertionError(f"code {body['code']}: {body['msg']}") from self.failure

        return body["data"]

    def error(self) -> dict[str, Any]:
        """
        Return the envelope of a failure.

        Raises:
            AssertionError: The reply is not an envelope, or its code is 0.
        """
        body = self.envelope()
        assert body["code"] != 0, f"expected a failure, got {self.text}"
        return body


class SocketClosed(Exception):
    """The application closed the WebSocket, or refused it before accepting."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code
        self.reason = reason


class TestSocket:
    """
    The client's end of a WebSocket; made by `AppClient.websocket`.

    Messages of the application are queued, so a test may leave them unread.
    """

    __test__ = False  # not a test class, whatever its name begins with

    def __init__(self) -> None:
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self.headers: Headers = Headers()

    async def send_text(self, text: str) -> None:
        """Send a text message."""
        await self._to_app.put({"type": "websocket.receive", "text": text})

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary message."""
        await self._to_app.put({"type": "websocket.receive", "bytes": data})

    async def send_json(self, value: object) -> None:
        """Send a value as JSON text."""
        await self.send_text(json.dumps(value))

    async def receive_text(self) -> str:
        """Return the next message, which must be text; raises `SocketClosed` at the end."""
        text: str = (await self._receive())["text"]
        return text

    async def receive_bytes(self) -> bytes:
        """Return the next message, which must be binary; raises `SocketClosed` at the end."""
        data: bytes = (await self._receive())["bytes"]
        return data

    async def receive_json(self) -> Any:
        """Return the next message, which must be JSON text; raises `SocketClosed` at the end."""
        return json.loads(await self.receive_text())

    async def close(self, code: int = 1000) -> None:
        """Leave."""
        await self._to_app.put({"type": "websocket.disconnect", "code": code, "reason": ""})

    async def _receive(self) -> Message:
        message = await self._from_app.get()

        if message["type"] != "websocket.send":
            self._from_app.put_nowait(message)  # the end is seen by every later call too
            raise SocketClosed(message.get("code", 1006), message.get("reason") or "")

        return message


@dataclass(slots=True)
class _Exchange:
    """One request being answered: collects what the application sends."""

    body: bytes
    read: bool = False
    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self) -> Message:
        if not self.read:
            self.read = True
            return {"type": "http.request", "body": self.body, "more_body": False}

        await self.done.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = list(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            self.chunks.append(bytes(message.get("body", b"")))

            if not message.get("more_body", False):
                self.done.set()


class AppClient:
    """
    Talk to an ASGI application in process.

    As an async context manager it runs the application's lifespan; without, only requests.

    Args:
        app: The application.
        peer: The address that the application sees as the other end of the connection.
        headers: Headers that every request gets.
        raise_failures: Whether a failure that the application has logged and answered with 500 is
            raised here too, as Starlette's test client does.

    Example:
        ```python
        from ws_web import create_app
        from ws_web.testing import AppClient

        app = create_app()


        @app.get("/ping")
        async def ping() -> str:
            return "pong"


        async with AppClient(app) as client:
            assert (await client.get("/ping")).data() == "pong"
            assert (await client.get("/nothing")).error()["code"] == 404
        ```
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        peer: str = "127.0.0.1",
        headers: Mapping[str, str] | None = None,
        raise_failures: bool = False,
    ) -> None:
        self._app = app
        self._raise = raise_failures
        self._peer = peer
        self._headers = dict(headers or {})
        self._lifespan: _Lifespan | None = None
        self._state: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        lifespan = _Lifespan(self._app, self._state)
        await lifespan.start()
        self._lifespan = lifespan
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._lifespan is not None:
            lifespan, self._lifespan = self._lifespan, None
            await lifespan.stop()

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: HeaderItems = (),
        params: Mapping[str, object] | None = None,
        json: object = None,
        content: bytes | str = b"",
        data: Mapping[str, str] | None = None,
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
    ) -> Reply:
        """
        Send a request and return the reply once the application has finished it.

        Args:
            method: The HTTP method.
            url: A path, with or without a query.
            headers: Headers; a sequence of pairs may repeat a name.
            params: Query parameters.
            json: A value to send as JSON; None sends no JSON.
            content: The body, if it is not JSON.
            data: Fields of a form.
            files: Files of a form: of each, its name, content and content type.

        Raises:
            Exception: Whatever the application lets out.
        """
        body = content.encode() if isinstance(content, str) else content
        items = _items(self._headers) + _items(headers)

        if json is not None:
            body = _dump(json)
            items.append(("content-type", "application/json"))
        elif files is not None:
            body, kind = _multipart(data or {}, files)
            items.append(("content-type", kind))
        elif data is not None:
            body = urlencode(data).encode()
            items.append(("content-type", "application/x-www-form-urlencoded"))

        exchange = _Exchange(body)
        scope = self._scope("http", url, items, params)
        scope.update({"method": method, "http_version": "1.1", "scheme": "http"})

        if body:
            scope["headers"].append((b"content-length", str(len(body)).encode()))

        failure: Exception | None = None

        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:
            if self._raise or not exchange.done.is_set() or not is_logged(error):
                raise  # what the application has answered and logged is in the reply

            failure = error

        return Reply(exchange.status, Headers(raw=exchange.headers), b"".join(exchange.chunks), failure)

    async def get(self, url: str, **options: Any) -> Reply:
        """Send a GET request; options as for `request`."""
        return await self.request("GET", url, **options)

    async def post(self, url: str, **options: Any) -> Reply:
        """Send a POST request; options as for `request`."""
        return await self.request("POST", url, **options)

    async def put(self, url: str, **options: Any) -> Reply:
        """Send a PUT request; options as for `request`."""
        return await self.request("PUT", url, **options)

    async def patch(self, url: str, **options: Any) -> Reply:
        """Send a PATCH request; options as for `request`."""
        return await self.request("PATCH", url, **options)

    async def delete(self, url: str, **options: Any) -> Reply:
        """Send a DELETE request; options as for `request`."""
        return await self.request("DELETE", url, **options)

    @asynccontextmanager
    async def websocket(self, url: str, *, headers: HeaderItems = ()) -> AsyncIterator[TestSocket]:
        """
        Open a WebSocket for the length of an ``async with`` block; leaving it leaves the application.

        Args:
            url: A path, with or without a query.
            headers: Headers of the handshake.

        Raises:
            SocketClosed: The application refused the socket.
            Exception: Whatever the application lets out, at the end of the block.
        """
        socket = TestSocket()
        scope = self._scope("websocket", url, _items(self._headers) + _items(headers), None)
        scope.update({"scheme": "ws", "subprotocols": []})
        to_app, from_app = socket._to_app, socket._from_app  # noqa: SLF001 - both ends are made here
        to_app.put_nowait({"type": "websocket.connect"})
        task = asyncio.ensure_future(self._app(scope, to_app.get, from_app.put))
        # An application that returns without a close must not leave the test waiting for a message.
        task.add_done_callback(lambda _: from_app.put_nowait({"type": "websocket.close", "code": 1006}))

        try:
            first = await from_app.get()

            if first["type"] != "websocket.accept":
                from_app.put_nowait(first)
                # A close before the handshake has a code, an answer to it a status.
                code = first.get("code") or first.get("status") or 1006
                raise SocketClosed(code, first.get("reason") or "")

            socket.headers = Headers(raw=list(first.get("headers", ())))
            yield socket
        finally:
            to_app.put_nowait({"type": "websocket.disconnect", "code": 1001, "reason": ""})

            try:
                await task
            except Exception as error:
                if self._raise or not is_logged(error):
                    raise

    def _scope(
        self, kind: str, url: str, headers: Sequence[tuple[str, str]], params: Mapping[str, object] | None
    ) -> MutableMapping[str, Any]:
        # As clients send it. A path is not a URL: what begins with two slashes would be taken for a host.
        sent = quote(url, safe=_SENT_AS_IT_IS)
        split = urlsplit(sent if "://" in sent.partition("?")[0] else f"//testserver{sent}")
        query = "&".join(part for part in (split.query, urlencode(params or {}, doseq=True)) if part)
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]

        if not any(name == b"host" for name, _ in raw):
            raw.insert(0, (b"host", b"testserver"))

        return {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "path": unquote(split.path),
            "raw_path": split.path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": raw,
            "client": (self._peer, 50000),  # as good a port as any
            "server": ("testserver", 80),
            "state": dict(self._state),
            "extensions": {},
        }


class _Lifespan:
    """The lifespan protocol, run in a task of its own as servers do."""

    def __init__(self, app: ASGIApp, state: dict[str, Any]) -> None:
        self._app = app
        self._scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="lifespan")
        await self._step("startup")

    async def stop(self) -> None:
        await self._step("shutdown")
        assert self._task is not None
        await self._task

    async def _step(self, name: str) -> None:
        assert self._task is not None
        self._to_app.put_nowait({"type": f"lifespan.{name}"})
        answer = await self._from_app.get()

        if answer["type"] != f"lifespan.{name}.complete":
            await self._task  # raises what went wrong
            raise RuntimeError(answer.get("message") or f"the lifespan ended at {name}")

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._to_app.get, self._from_app.put)
        finally:
            # It may have ended without an answer, which somebody waits for.
            self._from_app.put_nowait({"type": "lifespan.ended"})


def _items(headers: HeaderItems) -> list[tuple[str, str]]:
    return list(headers.items()) if isinstance(headers, Mapping) else list(headers)


def _multipart(data: Mapping[str, str], files: Mapping[str, tuple[str, bytes, str]]) -> tuple[bytes, str]:
    """Return a form with files, and its content type."""
    boundary = secrets.token_hex(16)
    parts = [(f'name="{name}"', value.encode()) for name, value in data.items()]

    for name, (file_name, content, kind) in files.items():
        parts.append((f'name="{name}"; filename="{file_name}"\r\ncontent-type: {kind}', content))

    body = b"".join(
        f"--{boundary}\r\ncontent-disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n"
        for head, content in parts
    )
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def _dump(value: object) -> bytes:
    return json.dumps(value).encode()
