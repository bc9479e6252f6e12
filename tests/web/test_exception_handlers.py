"""Errors: what clients get, what the log has, and what goes on to the server."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fastapi import BackgroundTasks, HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from ws_core.errors import UsageError
from ws_web import (
    RequestIDMiddleware,
    Response,
    Settings,
    create_app,
)
from ws_web.testing import AppClient


class TestErrors:
    """Every error has the envelope, the request id and the headers of CORS."""

    @pytest.fixture
    def app(self) -> Any:
        """An application with CORS that fails in every way."""
        cors = {"cls": CORSMiddleware, "options": {"allow_origins": ["http://shop"]}}

        class Failing:
            def __init__(self, app: Any) -> None:
                self.app = app

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
                if scope.get("path") == "/middleware":
                    raise RuntimeError("in a middleware")

                await self.app(scope, receive, send)

        app = create_app(Settings(MIDDLEWARES=[{"cls": Failing}, cors]))

        @app.get("/boom")
        async def boom() -> int:
            raise RuntimeError("a secret inside")

        @app.get("/http")
        async def http(status: int) -> int:
            raise HTTPException(status, "because", headers={"Retry-After": "7"})

        @app.post("/json")
        async def json(value: dict[str, int]) -> int:
            return len(value)

        return app

    @pytest.mark.parametrize(
        ("method", "url", "body", "status"),
        [
            ("GET", "/nothing", b"", 404),
            ("DELETE", "/boom", b"", 405),
            ("GET", "/http?status=409", b"", 409),
            ("GET", "/http?status=503", b"", 503),
            ("GET", "/http?status=x", b"", 422),
            ("POST", "/json", b"{broken", 422),
            ("GET", "/boom", b"", 500),
            ("GET", "/middleware", b"", 500),
        ],
    )
    async def test_envelope_id_and_cors(
        self, app: Any, method: str, url: str, body: Any, status: int
    ) -> None:
        """Whatever fails, the client's one parser does."""
        headers = {"origin": "http://shop", "x-request-id": "r-1", "content-type": "application/json"}

        async with AppClient(app) as client:
            reply = await client.request(method, url, headers=headers, content=body)

        assert reply.status_code == status
        assert reply.error()["code"] == status
        assert reply.headers["x-request-id"] == "r-1"
        assert reply.headers["access-control-allow-origin"] == "http://shop"
        assert "secret" not in reply.text

    async def test_headers_of_an_http_exception_are_kept(self, app: Any) -> None:
        """Retry-After and the like."""
        async with AppClient(app) as client:
            assert (await client.get("/http?status=503")).headers["retry-after"] == "7"
            reply = await client.get("/http?status=304")
            assert (reply.status_code, reply.content) == (304, b"")

    async def test_a_failure_is_logged_once_with_its_traceback(
        self, app: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The log has what the reply hides."""
        async with AppClient(app) as client:
            await client.get("/boom%0afake?x=1")
            await client.get("/boom")

        records = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert len(records) == 1
        assert "a secret inside" in caplog.text
        assert records[0].getMessage() == "GET '/boom' failed: RuntimeError"

    async def test_a_failure_goes_on_to_the_server(self, app: Any) -> None:
        """As in Starlette, and marked, so that the server's log does not repeat it."""
        async with AppClient(app, raise_failures=True) as client:
            with pytest.raises(RuntimeError, match="a secret inside") as raised:
                await client.get("/boom")

        exc_info = (RuntimeError, raised.value, None)
        record = logging.LogRecord("uvicorn.error", logging.ERROR, "", 1, "again", None, exc_info)
        assert not logging.getLogger("uvicorn.error").filter(record)
        other = logging.LogRecord("uvicorn.error", logging.ERROR, "", 1, "news", None, None)
        assert logging.getLogger("uvicorn.error").filter(other)

    async def test_an_http_exception_of_a_middleware(self, caplog: pytest.LogCaptureFixture) -> None:
        """It is a reply like that of a route, not a failure."""

        class Refusing:
            def __init__(self, app: Any) -> None:
                self.app = app

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                raise HTTPException(403, "not you")

        app = create_app(Settings(MIDDLEWARES=[{"cls": Refusing}]))
        reply = await AppClient(app).get("/")
        assert (reply.status_code, reply.error()["msg"]) == (403, "not you")
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]

    async def test_what_fails_after_the_reply_is_logged_with_the_id(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A background task has nobody else to report to."""
        app = create_app()

        def fail() -> None:
            raise ValueError("later")

        @app.get("/{n}")
        async def endpoint(n: int, tasks: BackgroundTasks) -> int:
            tasks.add_task(fail)
            return n

        async with AppClient(app) as client:
            reply = await client.get("/1", headers={"x-request-id": "r-9"})

        records: list[Any] = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert reply.data() == 1
        assert [record.getMessage() for record in records] == [
            "GET '/1' failed after the reply had begun: ValueError"
        ]
        assert (records[0].request_id, records[0].route) == ("r-9", "/{n}")

    async def test_input_is_told_with_debug_only(self) -> None:
        """What was sent may be secret."""
        for debug in (False, True):
            app = create_app(Settings(DEBUG=debug))

            @app.get("/")
            async def endpoint(n: int) -> int:
                raise ValueError("why")

            async with AppClient(app) as client:
                assert ("hunter2" in (await client.get("/?n=hunter2")).text) is debug
                assert ("why" in (await client.get("/?n=1")).text) is debug

    async def test_the_users_own_500_handler_is_used(self) -> None:
        """Under the status or under Exception, plain or async."""

        def handler(request: Any, error: Any) -> Any:
            return Response(code=1, status_code=500, msg=str(error))

        for key in (500, Exception):
            app = create_app(exception_handlers={key: handler})

            @app.get("/")
            async def endpoint() -> int:
                raise ValueError("why")

            async with AppClient(app) as client:
                assert (await client.get("/")).error()["msg"] == "why"

    async def test_a_request_id_of_the_users_own(self) -> None:
        """A subclass replaces ours."""

        class Numbered(RequestIDMiddleware):
            def __init__(self, app: Any) -> None:
                super().__init__(app, new_id=lambda: "n-1")

        app = create_app(Settings(MIDDLEWARES=[{"cls": Numbered}]))

        async with AppClient(app) as client:
            assert (await client.get("/livez")).headers["x-request-id"] == "n-1"


@pytest.mark.parametrize("declared", [None, int, Any])
@pytest.mark.parametrize("plain", [False, True])
async def test_a_forgotten_await(declared: Any, *, plain: bool) -> None:
    """A route that returns a call that nobody awaits: the error says so, and names the function."""

    async def find_lamp() -> int:
        raise AssertionError

    async def endpoint() -> Any:
        return find_lamp()

    def plain_endpoint() -> Any:
        return find_lamp()

    app = create_app()
    app.get("/", response_model=declared)(plain_endpoint if plain else endpoint)

    async with AppClient(app) as client:
        failure = (await client.get("/")).failure
        assert isinstance(failure, UsageError)
        assert "find_lamp(…) without awaiting it: write `await`" in str(failure)
