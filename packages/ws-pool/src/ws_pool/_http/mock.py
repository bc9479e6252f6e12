"""Answers of a test in place of the network's.

The requests are real ones over socket pairs: retries, timeouts, redirects, streams, WebSockets and what
a server may do wrong are tested with the code that runs in production.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from aiohttp import web
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDictProxy
from yarl import URL

from ws_pool._http.hooks import HookFailed
from ws_pool.errors import UsageError

Simple: TypeAlias = int | str | bytes | dict[str, Any] | list[Any]  # Any: whatever JSON holds
Answer: TypeAlias = web.StreamResponse | Simple
AnswerFunction: TypeAlias = Callable[[web.BaseRequest], Answer | Awaitable[Answer]]
Answers: TypeAlias = AnswerFunction | Mapping[str, Any]  # Any: Simple | AnswerFunction; dict is invariant


@dataclass(frozen=True, slots=True)
class HttpMockCall:
    """
    A request that a mock has answered.

    Args:
        method: Its method.
        url: Its URL; the scheme is always http.
        headers: Its headers.
        body: Its body.
    """

    method: str
    url: URL
    headers: CIMultiDictProxy[str]
    body: bytes

    def json(self) -> Any:  # whatever was sent
        """Read the body as JSON."""
        return json.loads(self.body)


class HttpMock:
    """
    What answers a pool's requests in a test. `HttpPool.mock` yields it.

    Args:
        name: The pool's name.
        answers: See `HttpPool.mock`.
    """

    def __init__(self, name: str, answers: Answers) -> None:
        self.calls: list[HttpMockCall] = []
        self._name = name
        self._answers = answers
        self._server = web.Server(self._handle, access_log=None)
        # aiohttp's request has its server's protocol, and a failure is for the client at the other end.
        self._clients: dict[web.RequestHandler, ResponseHandler] = {}

    def __repr__(self) -> str:
        return f"<HttpMock of pool {self._name!r}: {len(self.calls)} calls>"

    async def connect(self, factory: Callable[[], ResponseHandler]) -> ResponseHandler:
        """Open a connection; called by the pool."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        server = self._server()
        await loop.connect_accepted_socket(lambda: server, theirs)
        _, client = await loop.create_connection(factory, sock=ours)
        self._clients[server] = client
        return client

    async def close(self) -> None:
        """Close all connections, and cancel what is being answered."""
        await self._server.shutdown(0.01)  # 0 would be no bound
        self._clients.clear()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request; what the test's function raises is raised where the request was made."""
        url = URL.build(scheme="http", authority=request.host, path=request.path).with_query(request.query)
        body = b"" if request.headers.get("upgrade") else await request.read()
        self.calls.append(HttpMockCall(request.method, url, request.headers, body))

        try:
            return await self._answer(request)
        except web.HTTPException:
            raise
        except Exception as error:  # noqa: BLE001 - an assertion of the test, most often
            self._clients[request.protocol].set_exception(HookFailed(error))
            return web.Response(status=500)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        found: object = self._answers if callable(self._answers) else self._find(self._answers, request)

        if callable(found):
            found = found(request)

        if inspect.isawaitable(found):
            found = await found

        match found:
            case web.StreamResponse():
                return found
            case int():
                return web.Response(status=found)
            case str():
                return web.Response(text=found)
            case bytes():
                return web.Response(body=found)
            case dict() | list():
                return web.json_response(found)

        message = (
            f"the mock of http pool {self._name!r} has {found!r} for {request.method} {request.path}: give "
            f"a status, text, bytes, a dict or list as JSON, or an aiohttp.web.Response"
        )
        raise UsageError(message, pool=self._name)

    def _find(self, answers: Mapping[str, object], request: web.BaseRequest) -> object:
        """Find the answer for a request by its method and path, with or without its host."""
        for key in (f"{request.method} {request.host}{request.path}", f"{request.method} {request.path}"):
            if key in answers:
                if isinstance(answers[key], web.StreamResponse):
                    message = f"{key!r}: a response can be sent only once: give a function that makes it"
                    raise UsageError(message, pool=self._name)

                return answers[key]

        message = (
            f"the mock of http pool {self._name!r} has no answer for {request.method} "
            f"{request.host}{request.path}: it has {', '.join(sorted(answers)) or 'none'}"
        )
        raise UsageError(message, pool=self._name)
