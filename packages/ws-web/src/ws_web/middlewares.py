"""The request id, in pure ASGI: context variables, streams and WebSockets pass through untouched.

Applications of `create_app` get theirs from the layer that observes requests, which uses what stands here.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ws_web._negotiation import ID_KEY, current_scope, get_request_id

__all__ = ("RequestIDMiddleware", "get_request_id")

REQUEST_ID_HEADER = "x-request-id"
TIMESTAMP_HEADER = "x-timestamp"

_ACCEPTED_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_RAW_ID_HEADER = REQUEST_ID_HEADER.encode()
_RAW_TIMESTAMP_HEADER = TIMESTAMP_HEADER.encode()
_OUR_HEADERS = frozenset({_RAW_ID_HEADER, _RAW_TIMESTAMP_HEADER})
_USUAL_HEADERS = frozenset({b"content-length", b"content-type"})
_HEADER_MESSAGES = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})

# As random as a UUID of version 4. To ask the system for each one would cost three times as much.
_AT_ONCE = 256
_DIGITS = 32
_new_ids: list[str] = []

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_ids.clear)  # a forked worker must not give out its parent's


def new_id() -> str:
    """Return a new unique id."""
    try:
        return _new_ids.pop()
    except IndexError:
        digits = os.urandom(_AT_ONCE * _DIGITS // 2).hex()
        _new_ids.extend(digits[at : at + _DIGITS] for at in range(_DIGITS, len(digits), _DIGITS))
        return digits[:_DIGITS]


def accepted_id(scope: Scope) -> str | None:
    """Return the client's id if it sent exactly one and it is harmless."""
    sent: bytes | None = None

    for name, value in scope.get("headers", ()):
        if name == _RAW_ID_HEADER:
            if sent is not None:
                return None

            sent = value

    return sent.decode("ascii") if sent is not None and _ACCEPTED_ID.fullmatch(sent) else None


class ReplyHeaders:
    """What every reply says: its id and time, and the headers that it does not set itself."""

    def __init__(
        self,
        *,
        defaults: Mapping[str, str] = MappingProxyType({}),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._defaults = [(name.encode(), value.encode()) for name, value in defaults.items() if value]
        self._names = _OUR_HEADERS.union(name for name, _ in self._defaults)
        self._clock = clock
        self._second = -1
        self._timestamp = (_RAW_TIMESTAMP_HEADER, b"")

    def add_to(self, message: Message, request_id: str) -> None:
        """Add them to the start of a reply; an accepted WebSocket gets id and time only."""
        second = int(self._clock())

        if second != self._second:
            self._timestamp = (_RAW_TIMESTAMP_HEADER, b"%d" % second)
            self._second = second

        headers = message.get("headers", ())
        defaults = self._defaults if message["type"] == "http.response.start" else ()

        for name, _ in headers:
            # Header names of ASGI messages are in lower case; some applications forget it.
            if name not in _USUAL_HEADERS and name.lower() in self._names:
                given = {name.lower() for name, _ in headers}
                headers = [pair for pair in headers if pair[0].lower() not in _OUR_HEADERS]
                defaults = [pair for pair in defaults if pair[0] not in given]
                break

        id_header = (_RAW_ID_HEADER, request_id.encode("ascii"))
        message["headers"] = [*headers, id_header, self._timestamp, *defaults]


class RequestIDMiddleware:
    """
    Give every request and WebSocket an id, for the client and for the code inside.

    An ``x-request-id`` of the client is kept when it is one header of 1 to 128 characters out of
    ``A-Z a-z 0-9 . _ -``; anything else (several headers, other characters) gets a new id, so
    that no client can write into logs. The reply carries exactly one ``x-request-id`` and an
    ``x-timestamp``, whole seconds of Unix time when the reply began.

    Args:
        app: The application inside.
        clock: Returns Unix time in seconds.
        new_id: Returns a new unique id.

    Example:
        ```python
        from starlette.responses import PlainTextResponse

        from ws_web import RequestIDMiddleware, get_request_id
        from ws_web.testing import AppClient


        async def app(scope, receive, send):
            await PlainTextResponse(get_request_id())(scope, receive, send)


        client = AppClient(RequestIDMiddleware(app))
        reply = await client.get("/", headers={"x-request-id": "order-7"})
        assert reply.text == reply.headers["x-request-id"] == "order-7"
        ```
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = new_id,
    ) -> None:
        self._app = app
        self._headers = ReplyHeaders(clock=clock)
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; other scopes than http and websocket pass unchanged."""
        # A mounted application shares the id of the one around it, which writes the headers.
        if scope["type"] not in ("http", "websocket") or ID_KEY in scope:
            await self._app(scope, receive, send)
            return

        request_id = accepted_id(scope) or self._new_id()
        scope[ID_KEY] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] in _HEADER_MESSAGES:
                self._headers.add_to(message, request_id)

            await send(message)

        token = current_scope.set(scope)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            current_scope.reset(token)

    @staticmethod
    def get_request_id() -> str:
        """Return the id of the request that is being answered; the same as `get_request_id`."""
        return get_request_id()
