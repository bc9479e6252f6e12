"""The testing helpers themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, File, Form, UploadFile, WebSocket
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from ws_web import create_app
from ws_web.dependencies import client
from ws_web.testing import AppClient, SocketClosed, override, rolled_back


async def mirror(scope: Scope, receive: Receive, send: Send) -> None:
    """Reply with what arrived."""
    message = await receive()
    names = {name.decode(): value.decode() for name, value in scope["headers"]}
    text = f"{scope['method']} {scope['path']}?{scope['query_string'].decode()} {names} {message['body']!r}"
    await PlainTextResponse(text)(scope, receive, send)


class TestRequests:
    """What reaches the application."""

    async def test_methods_queries_headers_bodies(self) -> None:
        """All of them as given."""
        client = AppClient(mirror, headers={"x-all": "1"})
        assert (await client.get("/a?b=1", params={"c": [2, 3]})).text.startswith("GET /a?b=1&c=2&c=3 ")
        assert "'x-all': '1'" in (await client.delete("/")).text
        assert '{"a": 1}' in (await client.put("/", json={"a": 1})).text
        reply = await client.patch("/", content="x", headers=[("host", "shop")])
        assert "'host': 'shop'" in reply.text
        assert reply.text.endswith("b'x'")

    async def test_paths_are_decoded(self) -> None:
        """As servers do; what cannot stand in a request is encoded first."""
        client = AppClient(mirror)
        assert (await client.get("/caf%C3%A9/a%20b%2Fc?q=%C3%A9")).text.startswith(
            "GET /café/a b/c?q=%C3%A9 "
        )
        assert (await client.get("/é x?q=é")).text.startswith("GET /é x?q=%C3%A9 ")
        assert (await client.get("//a")).text.startswith("GET //a? ")
        assert (await client.get("/a\nb?to=http://x")).text.startswith("GET /a\nb?to=http://x ")
        assert (await client.get("http://shop/a%41")).text.startswith("GET /aA? ")

    async def test_forms(self) -> None:
        """Fields alone, and with files."""
        app = create_app()

        @app.post("/form")
        async def form(name: Annotated[str, Form()]) -> str:
            return name

        @app.post("/plan")
        async def plan(name: Annotated[str, Form()], plan: Annotated[UploadFile, File()]) -> list[Any]:
            return [name, plan.filename, plan.content_type, len(await plan.read())]

        async with AppClient(app) as client:
            assert (await client.post("/form", data={"name": "a & b"})).data() == "a & b"
            files = {"plan": ("a.png", b"\r\n--pixels", "image/png")}
            reply = await client.post("/plan", data={"name": "red"}, files=files)
            assert reply.data() == ["red", "a.png", "image/png", 10]
            assert (await client.post("/plan", files=files)).status_code == 422

    async def test_errors_come_out(self) -> None:
        """A test wants to see them."""

        async def failing(scope: Scope, receive: Receive, send: Send) -> None:
            raise ValueError("boom")

        with pytest.raises(ValueError, match="boom"):
            await AppClient(failing).get("/")


class TestAssertions:
    """The envelope's checks fail when they should."""

    async def test_the_cause_of_a_failure(self) -> None:
        """A test that expects data sees the error of the application, and not its reply alone."""
        app = create_app()

        @app.get("/")
        async def failing() -> None:
            raise LookupError("no lamp")

        async with AppClient(app) as client:
            reply = await client.get("/")
            assert reply.status_code == 500
            assert isinstance(reply.failure, LookupError)

            with pytest.raises(AssertionError, match="code 500") as caught:
                reply.data()

            assert caught.value.__cause__ is reply.failure
            assert (await client.get("/nowhere")).failure is None

    @pytest.mark.parametrize("body", ["[1]", '{"code": 0}', '"text"'])
    async def test_no_envelope(self, body: Any) -> None:
        """Other JSON is refused."""
        reply = await AppClient(PlainTextResponse(body)).get("/")

        with pytest.raises(AssertionError, match="not an envelope"):
            reply.envelope()

    async def test_data_of_a_failure_and_error_of_a_success(self) -> None:
        """Each wants its own kind."""
        client = AppClient(create_app())

        with pytest.raises(AssertionError, match="code 404: Not Found"):
            (await client.get("/x")).data()

        with pytest.raises(AssertionError, match="expected a failure"):
            (await client.get("/livez")).error()

    async def test_an_envelope_of_another_request(self) -> None:
        """The body's id must be the header's."""
        body = '{"code":0,"data":1,"msg":"","request_id":"other","extra":null}'

        with pytest.raises(AssertionError, match="the body says request other"):
            (await AppClient(PlainTextResponse(body)).get("/")).data()


class TestLifespans:
    """A lifespan that does not do as it should."""

    async def test_an_application_without_a_lifespan(self) -> None:
        """It is distinguished from one that failed."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            return

        with pytest.raises(RuntimeError, match="the lifespan ended at startup"):
            await AppClient(app).__aenter__()

    async def test_a_failing_shutdown(self) -> None:
        """The error comes out at the end of the block."""

        async def lifespan(app: Any) -> AsyncIterator[Any]:
            yield
            raise ValueError("at the end")

        with pytest.raises(ValueError, match="at the end"):
            async with AppClient(FastAPI(lifespan=asynccontextmanager(lifespan))):
                pass


class TestSockets:
    """The client's end of a WebSocket."""

    async def test_kinds_of_messages(self) -> None:
        """Text, bytes, JSON; then the end, seen as often as asked."""
        app = FastAPI()

        @app.websocket("/")
        async def endpoint(ws: WebSocket) -> None:
            await ws.accept()
            await ws.send_bytes(await ws.receive_bytes())
            await ws.send_json(await ws.receive_json())
            await ws.close(4001, "enough")

        async with AppClient(app).websocket("/") as socket:
            await socket.send_bytes(b"x")
            await socket.send_json({"a": 1})
            assert await socket.receive_bytes() == b"x"
            assert await socket.receive_json() == {"a": 1}

            for _ in range(2):
                with pytest.raises(SocketClosed, match="4001 enough"):
                    await socket.receive_text()

    async def test_leaving(self) -> None:
        """The application sees the code."""
        app = FastAPI()
        seen = []

        @app.websocket("/")
        async def endpoint(ws: WebSocket) -> None:
            await ws.accept()
            seen.append(await ws.receive())

        async with AppClient(app).websocket("/") as socket:
            await socket.close(4002)

        assert seen[0]["code"] == 4002


def first() -> str:
    """A dependency."""
    return "first"


def second() -> str:
    """Another one."""
    return "second"


class TestOverride:
    """Dependencies that are replaced for a while."""

    async def test_it_is_undone(self) -> None:
        """After an error too, and what was replaced before stays so."""
        app = create_app()

        @app.get("/")
        async def endpoint(a: Annotated[str, Depends(first)], b: Annotated[str, Depends(second)]) -> str:
            return f"{a} {b}"

        app.dependency_overrides[first] = lambda: "1"

        async with AppClient(app) as web:
            with pytest.raises(KeyError), override(app, {second: lambda: "2"}):
                assert (await web.get("/")).data() == "1 2"
                raise KeyError

            assert (await web.get("/")).data() == "1 second"


class Pools:
    """A manager of two pools whose clients note what is done."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @asynccontextmanager
    async def get_client(self, name: str = "default", *, alone: bool = False) -> AsyncIterator[Any]:
        """Return a client."""
        self.events.append(f"client of {name}")

        @asynccontextmanager
        async def begin() -> AsyncIterator[None]:
            try:
                yield
            except BaseException as error:
                self.events.append(f"rolled back: {type(error).__name__}")
                raise

        yield SimpleNamespace(begin=begin, name=name)


class TestRolledBack:
    """One transaction for a test; tests/integration use a database."""

    async def test_one_client_for_all_requests(self) -> None:
        """Of the pool that is named; the others are used as always, and all is as before in the end."""
        pools = Pools()
        app = create_app()
        before = app.state.components = {"DATABASES": pools}

        @app.get("/")
        async def endpoint(
            one: Annotated[Any, Depends(client("DATABASES"))],
            other: Annotated[Any, Depends(client("DATABASES", "other"))],
        ) -> list[str]:
            return [one.name, other.name]

        async with AppClient(app) as web:
            async with rolled_back(app) as sql:
                assert sql.name == "default"
                assert (await web.get("/")).data() == ["default", "other"]

            with pytest.raises(KeyError):
                async with rolled_back(app):
                    raise KeyError

        assert pools.events == [
            "client of default",
            "client of other",
            "rolled back: _RolledBack",
            "client of default",
            "rolled back: KeyError",
        ]
        assert app.state.components is before
