"""The request id, as pure ASGI."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import BackgroundTasks, WebSocket
from fastapi.responses import StreamingResponse
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from ws_web import RequestIDMiddleware, create_app, get_request_id
from ws_web._error_boundary import ErrorBoundaryMiddleware
from ws_web.middlewares import accepted_id
from ws_web.testing import AppClient, Reply


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Reply with the request id as the code inside sees it."""
    await PlainTextResponse(get_request_id())(scope, receive, send)


def with_ids(app: Any = echo) -> Any:
    """Wrap an application with predictable ids and time."""
    numbers = itertools.count(1)
    return RequestIDMiddleware(app, clock=lambda: 1700000000.9, new_id=lambda: f"new-{next(numbers)}")


def values(reply: Reply, name: str) -> Any:
    """Return every value of a header."""
    return [value for key, value in reply.headers.items() if key == name]


class TestRequestID:
    """Which ids are accepted, and what the reply says."""

    @pytest.mark.parametrize("sent", ["a", "A-1_b.c", "x" * 128])
    async def test_harmless_ids_are_kept(self, sent: Any) -> None:
        """The client's id is the request's."""
        reply = await AppClient(with_ids()).get("/", headers={"x-request-id": sent})
        assert reply.text == sent
        assert values(reply, "x-request-id") == [sent]

    @pytest.mark.parametrize(
        "sent",
        [
            "",
            "x" * 129,
            "x" * 8192,
            "a b",
            "a\nb",
            "a\r\nSet-Cookie: x",
            "\x1b[31m",
            "é",
            "a/b",
            "a\n",
            "\x00",
        ],
    )
    async def test_anything_else_gets_a_new_one(self, sent: Any) -> None:
        """No client can write into logs."""
        reply = await AppClient(with_ids()).get("/", headers={"x-request-id": sent})
        assert reply.text == "new-1"

    @given(st.binary(max_size=200))
    def test_no_bytes_get_through(self, sent: Any) -> None:
        """Whatever is sent, the id in use is harmless."""
        accepted = accepted_id({"headers": [(b"x-request-id", sent)]})
        assert accepted is None or (accepted.isascii() and len(accepted) <= 128 and accepted.isprintable())

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_forked_workers_have_ids_of_their_own(self) -> None:
        """A worker does not give out what its parent had in stock."""
        # One prints after the other: what is longer than PIPE_BUF could be torn.
        code = (
            "import os; from ws_web.middlewares import new_id; new_id(); child = os.fork();"
            "ids = [new_id() for _ in range(300)]; child and os.waitpid(child, 0); print(*ids)"
        )
        ids = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
        assert len(ids) == len(set(ids)) == 600
        assert {len(one) for one in ids} == {32}

    async def test_duplicates_get_a_new_one(self) -> None:
        """Two ids count as no id."""
        headers = [("x-request-id", "a"), ("x-request-id", "a")]
        reply = await AppClient(with_ids()).get("/", headers=headers)
        assert reply.text == "new-1"
        assert values(reply, "x-request-id") == ["new-1"]

    async def test_the_reply_has_exactly_one_of_each(self) -> None:
        """An id that the application set itself is replaced."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            headers = {"X-Request-ID": "own", "x-timestamp": "own"}
            await PlainTextResponse("x", headers=headers)(scope, receive, send)

        reply = await AppClient(with_ids(app)).get("/")
        assert values(reply, "x-request-id") == ["new-1"]
        assert values(reply, "x-timestamp") == ["1700000000"]

    async def test_concurrent_requests_do_not_mix(self) -> None:
        """Each task sees its own id, also after it has waited."""
        barrier = asyncio.Barrier(20)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await barrier.wait()
            await echo(scope, receive, send)

        client = AppClient(RequestIDMiddleware(app))
        replies = await asyncio.gather(
            *(client.get("/", headers={"x-request-id": f"r{n}"}) for n in range(20))
        )
        assert [reply.text for reply in replies] == [f"r{n}" for n in range(20)]
        assert get_request_id() == ""

    async def test_streams_and_background_tasks_see_it(self) -> None:
        """The context reaches to the end of the request."""
        app = create_app()
        seen = []

        @app.get("/")
        async def endpoint(tasks: BackgroundTasks) -> Any:
            async def stream() -> AsyncIterator[Any]:
                yield get_request_id()

            tasks.add_task(lambda: seen.append(get_request_id()))
            return StreamingResponse(stream())

        async with AppClient(app) as client:
            reply = await client.get("/", headers={"x-request-id": "r-1"})

        assert reply.text == "r-1"
        assert seen == ["r-1"]

    async def test_websockets_have_one_too(self) -> None:
        """The handshake's reply carries it, messages are left alone."""
        app = create_app()

        @app.websocket("/")
        async def endpoint(ws: WebSocket) -> None:
            await ws.accept()
            await ws.send_text(RequestIDMiddleware.get_request_id())
            await ws.close()

        async with AppClient(app) as client, client.websocket("/", headers={"x-request-id": "w-1"}) as socket:
            assert await socket.receive_text() == "w-1"
            assert socket.headers["x-request-id"] == "w-1"

    async def test_new_ids_are_unique(self) -> None:
        """By default they are random."""
        client = AppClient(RequestIDMiddleware(echo))
        assert (await client.get("/")).text != (await client.get("/")).text

    async def test_other_scopes_pass(self) -> None:
        """The lifespan passes unchanged."""
        seen = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope["type"])

        nothing: Any = None
        await RequestIDMiddleware(app)({"type": "lifespan"}, nothing, nothing)
        await ErrorBoundaryMiddleware(app, handler=nothing)({"type": "lifespan"}, nothing, nothing)
        assert seen == ["lifespan", "lifespan"]
