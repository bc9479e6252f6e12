"""What a route declares beyond FastAPI: errors, a deadline, and that it ends with its client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import fastapi
import pytest
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute as PlainRoute
from fastapi.routing import request_response

from ws_core.errors import UsageError
from ws_web import APIRouter, ErrorCode, Request, create_app
from ws_web.testing import AppClient


class StoreError(ErrorCode):
    """Errors of a store."""

    EMPTY = 4201, "Empty", 409
    LOCKED = 4202, "Locked", 409
    BROKEN = "E7", "Broken", 503


class TestErrors:
    """OpenAPI lists what a route declares."""

    @pytest.mark.parametrize("place", ["app", "router", "api_route", "add_api_route"])
    async def test_every_way_to_declare_a_route(self, place: str) -> None:
        """By status, with code and text; what FastAPI's ``responses`` says wins."""
        app = create_app()

        async def endpoint() -> int:
            return 1

        errors: Any = [StoreError.EMPTY, StoreError.LOCKED, StoreError.BROKEN, 404]

        if place == "add_api_route":
            app.add_api_route("/x", endpoint, errors=errors, responses={404: {"description": "own"}})
        elif place == "router":
            router = APIRouter()
            router.get("/x", errors=errors, responses={404: {"description": "own"}})(endpoint)
            app.include_router(router)
        else:
            declare = app.api_route if place == "api_route" else app.get
            declare("/x", errors=errors, responses={404: {"description": "own"}})(endpoint)

        responses = app.openapi()["paths"]["/x"]["get"]["responses"]
        assert set(responses) == {"200", "404", "409", "503"}
        assert responses["404"] == {"description": "own"}
        assert responses["409"]["description"] == "4201: Empty; 4202: Locked"
        content = responses["409"]["content"]["application/json"]
        assert content["schema"]["$ref"].endswith("Envelope_Any_")
        assert content["examples"]["4202"]["value"]["msg"] == "Locked"
        assert responses["503"]["description"] == "E7: Broken"

        async with AppClient(app) as client:
            assert (await client.get("/x")).data() == 1

    @pytest.mark.parametrize("wrong", ["x", 200, None])
    def test_what_is_not_an_error(self, wrong: Any) -> None:
        """The message says what may be listed."""
        with pytest.raises(UsageError, match=f"not {wrong!r}"):
            create_app().get("/", errors=[wrong])

    @pytest.mark.parametrize("wrong", [404, "404"])
    def test_what_is_not_a_list(self, wrong: Any) -> None:
        """A single status is not one."""
        with pytest.raises(UsageError, match="errors is a list"):
            create_app().get("/", errors=wrong)


class TestDeadlines:
    """A reply that is not ready in time is 504."""

    async def test_the_handler_is_cancelled(self) -> None:
        """With dependencies that clean up; other routes are not limited."""
        app = create_app()
        seen: list[str] = []

        async def resource() -> AsyncIterator[None]:
            yield
            seen.append("released")

        @app.get("/slow", deadline=0.01, dependencies=[fastapi.Depends(resource)])
        async def slow() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                seen.append("cancelled")

        @app.get("/free")
        async def free() -> int:
            await asyncio.sleep(0.02)
            return 1

        async with AppClient(app) as client:
            reply = await client.get("/slow")
            assert (await client.get("/free")).data() == 1

        assert (reply.status_code, reply.error()["msg"]) == (504, "Gateway Timeout")
        assert seen == ["cancelled", "released"]

    async def test_the_one_of_the_application(self) -> None:
        """It holds where a route, of an included router too, declares none."""
        app = create_app(deadline=0.01)
        router = APIRouter()

        async def slow() -> int:
            await asyncio.sleep(0.05)
            return 1

        app.get("/app")(slow)
        app.get("/long", deadline=30)(slow)
        app.get("/none", deadline=None)(slow)
        app.get("/watched", cancel_on_disconnect=True)(slow)
        router.get("/router")(slow)
        app.include_router(router)

        async with AppClient(app) as client:
            statuses = {
                path: (await client.get(path)).status_code
                for path in ("/app", "/router", "/watched", "/long", "/none")
            }

        assert statuses == {"/app": 504, "/router": 504, "/watched": 504, "/long": 200, "/none": 200}

    async def test_a_stream_only_has_to_begin(self) -> None:
        """Its parts may come later."""
        app = create_app(deadline=0.05)

        @app.get("/")
        async def endpoint() -> StreamingResponse:
            async def parts() -> AsyncIterator[str]:
                for part in "abc":
                    await asyncio.sleep(0.03)
                    yield part

            return StreamingResponse(parts())

        async with AppClient(app) as client:
            assert (await client.get("/")).text == "abc"

    @pytest.mark.parametrize("options", [{"deadline": 30}, {"cancel_on_disconnect": True}])
    async def test_a_timeout_of_the_handler_is_its_own(self, options: Any) -> None:
        """It is a failure like any other."""
        app = create_app()

        @app.get("/", **options)
        async def endpoint() -> None:
            raise TimeoutError("the database")

        async with AppClient(app) as client:
            assert (await client.get("/")).status_code == 500

    @pytest.mark.parametrize("wrong", [0, -1, "3", True, float("nan")])
    def test_what_is_not_a_deadline(self, wrong: Any) -> None:
        """Refused where it is written."""
        with pytest.raises(UsageError, match="deadline must be a positive number of seconds"):
            create_app().get("/", deadline=wrong)

        with pytest.raises(UsageError, match="deadline must be a positive number of seconds"):
            create_app(deadline=wrong)

    def test_a_route_of_another_class(self) -> None:
        """It would ignore the deadline."""
        router = APIRouter(route_class=PlainRoute)

        with pytest.raises(UsageError, match=r"/x: deadline and cancel_on_disconnect need a route of"):
            router.get("/x", deadline=1)(lambda: 1)

        router.get("/y")(lambda: 1)


class Connection:
    """A client that sends a body and goes away."""

    def __init__(self, body: bytes = b"") -> None:
        self.gone = asyncio.Event()
        self.sent: list[Any] = []
        self._parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive(self) -> Any:
        """Return the body, and then wait for the end."""
        if self._parts:
            return self._parts.pop()

        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """Note what would be sent."""
        self.sent.append(message)


def scope(method: str, path: str) -> Any:
    """Return the scope of a request."""
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": None,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "http",
    }


class TestClientsThatGo:
    """`cancel_on_disconnect`, off by default."""

    @pytest.mark.parametrize("watched", [True, False])
    async def test_the_handler_is_cancelled_if_it_says_so(self, watched: bool) -> None:
        """Else it runs to its end: writes must finish."""
        app = create_app()
        started, finish = asyncio.Event(), asyncio.Event()
        ends: list[str] = []

        @app.post("/", cancel_on_disconnect=watched)
        async def endpoint(request: Request) -> str:
            assert await request.body() == b"body"
            started.set()

            try:
                await finish.wait()
            except asyncio.CancelledError:
                ends.append("cancelled")
                raise

            ends.append("finished")
            return "done"

        connection = Connection(b"body")
        serving = asyncio.create_task(app(scope("POST", "/"), connection.receive, connection.send))
        await started.wait()
        connection.gone.set()

        if not watched:
            finish.set()

        await serving
        assert ends == ["cancelled" if watched else "finished"]
        assert connection.sent[0]["status"] == (499 if watched else 200)

    async def test_a_client_that_stays(self) -> None:
        """Its reply is that of any route, and nothing watches it any more."""
        app = create_app()

        @app.post("/", cancel_on_disconnect=True, deadline=30)
        async def endpoint(request: Request) -> str:
            return (await request.body()).decode()

        async with AppClient(app) as client:
            assert (await client.post("/", content="hello")).data() == "hello"

        names = {task.get_name() for task in asyncio.all_tasks()}
        assert "watch for the client's end" not in names


async def test_a_handler_that_is_built_anew() -> None:
    """Add-ons change a route and have its handler built again: the envelope stays one."""
    app = create_app()

    @app.get("/items")
    async def items() -> list[int]:
        return [1]

    route: Any = app.routes[-1]
    route.app = request_response(route.get_route_handler())

    async with AppClient(app) as client:
        assert (await client.get("/items")).data() == [1]

    schema = app.openapi()["paths"]["/items"]["get"]["responses"]["200"]["content"]["application/json"][
        "schema"
    ]
    assert schema["$ref"].endswith("Envelope_list_int__")
