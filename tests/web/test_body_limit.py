"""The limit of request bodies: what is refused, with what reply, and whose limit counts."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from fastapi import APIRouter as FastAPIRouter
from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from ws_web import APIRouter, Request, Settings, SettingsError, create_app
from ws_web._error_boundary import ErrorBoundaryMiddleware
from ws_web.testing import AppClient


def app_that_counts(**options: Any) -> FastAPI:
    """Return an application whose one route returns the length of a body."""
    app = create_app(**options)

    @app.post("/")
    async def count(request: Request) -> int:
        return len(await request.body())

    return app


class TestBodies:
    """The limit of request bodies."""

    @pytest.fixture
    def client(self) -> AppClient:
        """An application that takes ten bytes."""
        app = create_app(Settings(APP_CONFIG={"max_body_size": 10}))

        @app.post("/json")
        async def json(value: list[int]) -> int:
            return len(value)

        @app.post("/stream")
        async def stream(request: Request) -> int:
            return sum([len(chunk) async for chunk in request.stream()])

        return AppClient(app)

    @pytest.mark.parametrize("path", ["/json", "/stream"])
    async def test_announced(self, client: AppClient, path: str) -> None:
        """Refused before it is read."""
        reply = await client.post(path, json=[1] * 10)
        assert reply.status_code == 413
        assert (reply.error()["code"], reply.error()["msg"]) == (413, "Content Too Large")

    @pytest.mark.parametrize("path", ["/json", "/stream"])
    @pytest.mark.parametrize("announced", [None, b"5", b"nonsense"])
    async def test_not_announced(self, client: AppClient, path: str, announced: bytes | None) -> None:
        """A body in chunks is cut off at the limit, whatever its headers say."""
        sent: list[Any] = []
        chunks = [{"type": "http.request", "body": b"[1,1,", "more_body": True}] * 100

        async def receive() -> Any:
            return chunks.pop()

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"content-type", b"application/json")]
        headers += [(b"content-length", announced)] if announced else []
        scope = client._scope("http", path, [], None)
        scope.update(method="POST", headers=headers, http_version="1.1", scheme="http")
        await client._app(scope, receive, send)
        assert sent[0]["status"] == 413
        assert b'"request_id":"' in sent[1]["body"]
        assert len(chunks) == 97

    async def test_within(self, client: AppClient) -> None:
        """Exactly the limit is fine."""
        assert (await client.post("/stream", content=b"x" * 10)).data() == 10

    @pytest.mark.parametrize("size", [-1, "10", True])
    def test_wrong_limits(self, size: Any) -> None:
        """The message names the key."""
        with pytest.raises(SettingsError, match="max_body_size must be a number of bytes"):
            create_app(max_body_size=size)


class TestWhoseLimit:
    """Routes, routers and mounted applications may set limits of their own."""

    async def test_by_default_16_mib(self) -> None:
        """One byte more is refused; None lifts the limit."""
        size = 16 * 1024 * 1024

        for limit, status in (({}, 413), ({"max_body_size": None}, 200)):
            client = AppClient(app_that_counts(**limit))
            assert (await client.post("/", content=b"x" * size)).status_code == 200
            assert (await client.post("/", content=b"x" * (size + 1))).status_code == status

    @pytest.mark.parametrize(("inner", "status"), [(None, 413), (3, 413), (20, 200)])
    async def test_a_mounted_application(self, inner: int | None, status: int) -> None:
        """It has the limit of the outer one, unless it sets another."""
        app = app_that_counts(max_body_size=5)
        app.mount("/inner", app_that_counts(**({} if inner is None else {"max_body_size": inner})))
        reply = await AppClient(app).post("/inner/", content=b"x" * 10)
        assert reply.status_code == status
        assert reply.envelope()["code"] == (0 if status == 200 else 413)

    @pytest.mark.skipif(
        "max_body_size" not in inspect.signature(FastAPIRouter).parameters,
        reason="FastAPI has this option since 0.164",
    )
    @pytest.mark.parametrize(
        ("of_router", "of_route", "status"), [(20, None, 200), (3, 20, 200), (20, 3, 413)]
    )
    async def test_a_router_and_a_route(self, of_router: int, of_route: int | None, status: int) -> None:
        """The innermost counts, and its refusal has the envelope too."""
        router = APIRouter(max_body_size=of_router)

        @router.post("/count", max_body_size=of_route)
        async def count(request: Request) -> int:
            return len(await request.body())

        app = create_app(max_body_size=5)
        app.include_router(router)
        reply = await AppClient(app).post("/count", content=b"x" * 10)
        assert reply.status_code == status
        assert reply.envelope()["code"] == (0 if status == 200 else 413)

    @pytest.mark.parametrize("announced", [True, False])
    async def test_a_middleware_that_reads_the_body(self, *, announced: bool) -> None:
        """No body makes a 500, wherever it is read."""

        class Reading:
            def __init__(self, app: Any) -> None:
                self.app = app

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                if scope["type"] == "http":
                    while (await receive()).get("more_body"):
                        pass

                await self.app(scope, receive, send)

        app = app_that_counts(max_body_size=5)
        app.add_middleware(Reading)
        client = AppClient(app)
        scope = client._scope("http", "/", [("content-length", "10")] if announced else [], None)
        scope.update(method="POST", http_version="1.1", scheme="http")
        chunks = [{"type": "http.request", "body": b"xxxxx", "more_body": True}] * 3
        sent: list[Any] = []

        async def receive() -> Any:
            return chunks.pop()

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)
        assert sent[0]["status"] == 413
        assert b'"code":413' in sent[1]["body"]

    async def test_a_middleware_of_functions(self) -> None:
        """Starlette's BaseHTTPMiddleware puts the refusal into an exception group."""
        app = create_app(max_body_size=5)

        @app.post("/")
        async def echo(value: list[int]) -> list[int]:
            return value

        @app.middleware("http")
        async def pass_on(request: Any, call_next: Any) -> Any:
            return await call_next(request)

        reply = await AppClient(app).post("/", json=[1, 2, 3, 4])
        assert (reply.status_code, reply.error()["code"]) == (413, 413)


class TestTaskGroups:
    """Errors that come out of a task group."""

    async def test_other_errors(self) -> None:
        """A group that is not about a refused body is raised as it is."""

        async def fails(_scope: Scope, _receive: Receive, _send: Send) -> None:
            raise ExceptionGroup("two", [ValueError("a"), ValueError("b")])

        async def nothing(*_: Any) -> Any:
            return {}

        with pytest.raises(ExceptionGroup, match="two"):
            boundary = ErrorBoundaryMiddleware(fails, handler=lambda *_: PlainTextResponse("", 500))
            scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
            await boundary(scope, nothing, nothing)
