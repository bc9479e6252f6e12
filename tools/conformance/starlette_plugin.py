"""A pytest plugin that serves the applications of Starlette's own tests behind our middlewares.

Each ``Starlette()`` becomes ``create_app()`` without probes, and each other ASGI application that a test
client gets is put in the place of the router of one. Errors lose the envelope on the way out, and replies
the headers that we add.
"""

from __future__ import annotations

from typing import Any

import starlette.applications
import starlette.testclient
from pydantic_core import from_json

from tools.conformance._envelopes import FIELDS, refused_with
from ws_web.app import Application, create_app
from ws_web.conf import Settings

# Any below: applications and messages of Starlette's tests.

ADDED = {
    b"x-request-id", b"x-timestamp", b"x-content-type-options", b"x-frame-options", b"referrer-policy",
}  # fmt: skip
SETTINGS = Settings(ACCESS_LOG="off", ALLOWED_ORIGINS=["*"])

_Real = starlette.applications.Starlette
_real_client = starlette.testclient.TestClient.__init__


class _Substitute(type):
    """The class of a class whose instances are our applications."""

    def __call__(cls, *args: Any, **options: Any) -> Any:
        if cls is Starlette and not args:
            options.setdefault("openapi_url", None)
            return create_app(SETTINGS, health=False, **options)

        return super().__call__(*args, **options)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _Real) if cls is Starlette else super().__instancecheck__(instance)


class Starlette(_Real, metaclass=_Substitute):
    """What Starlette's tests get when they import Starlette."""


class Bare:
    """An ASGI `send` that takes the envelope off errors, and off replies the headers that we add."""

    def __init__(self, send: Any) -> None:
        self._send = send
        self._start: Any = None

    async def __call__(self, message: Any) -> None:
        """Hold the start of an error back until its body is known."""
        kind = message["type"]

        if kind.endswith("http.response.start") or kind == "websocket.accept":
            headers = [pair for pair in message.get("headers", ()) if pair[0] not in ADDED]
            message = {**message, "headers": headers}

            if message.get("status", 0) >= 400 and (b"content-type", b"application/json") in headers:
                self._start = message
                return

        if self._start is not None and kind.endswith("http.response.body"):
            start, self._start = self._start, None
            body = bytes(message.get("body", b""))

            if kind.startswith("websocket") and (closed := refused_with(body)) is not None:
                await self._send(closed)
                return

            start, message = bare(start, message, body)
            await self._send(start)

        await self._send(message)


def bare(start: Any, message: Any, body: bytes) -> tuple[Any, Any]:
    """Return an error as Starlette would have sent it, in plain text."""
    try:
        error = from_json(body)
    except ValueError:
        return start, message

    if not isinstance(error, dict) or set(error) != FIELDS:
        return start, message

    text = b"Internal Server Error" if start["status"] == 500 else error["msg"].encode()
    own = (b"content-length", b"content-type", b"vary")
    headers = [pair for pair in start["headers"] if pair[0] not in own]
    headers += [(b"content-length", b"%d" % len(text)), (b"content-type", b"text/plain; charset=utf-8")]
    return {**start, "headers": headers}, {**message, "body": text}


async def _call(self: Any, scope: Any, receive: Any, send: Any) -> None:
    await _real_call(self, scope, receive, send if scope["type"] == "lifespan" else Bare(send))


def _client(self: Any, app: Any, *args: Any, **options: Any) -> None:
    if not isinstance(app, Application) and starlette.testclient._is_asgi3(app):
        outer = create_app(SETTINGS, health=False, openapi_url=None)
        outer.router = app  # type: ignore[assignment]  # as far as it is called
        app = outer

    _real_client(self, app, *args, **options)


_real_call = Application.__call__
Application.__call__ = _call  # type: ignore[method-assign]  # the point of the plugin
starlette.applications.Starlette = Starlette  # type: ignore[misc]
starlette.testclient.TestClient.__init__ = _client  # type: ignore[method-assign]
