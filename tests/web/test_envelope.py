"""Routes and the envelope: what is wrapped, what is not, and what OpenAPI says of it."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

import fastapi
import pytest
from fastapi import BackgroundTasks, Body, Depends
from fastapi.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    StreamingResponse,
)
from pydantic import BaseModel, Field

from tests.web._support import get, only
from ws_web import (
    APIRoute,
    APIRouter,
    Envelope,
    Response,
    create_app,
    get_request_id,
    ok_raw,
)
from ws_web.testing import AppClient


class Item(BaseModel):
    """A typed result."""

    id: int
    name: str = "lamp"


async def ann() -> str:
    """A dependency."""
    return "ann"


class TestWrapped:
    """Results that come in the envelope."""

    async def test_the_five_fields(self) -> None:
        """The envelope is code, data, msg, request_id, extra, in that order."""

        async def endpoint() -> Item:
            return Item(id=1)

        reply = await get(only(endpoint))
        assert list(reply.json()) == ["code", "data", "msg", "request_id", "extra"]
        assert reply.data() == {"id": 1, "name": "lamp"}
        assert reply.headers["content-type"] == "application/json"

    @pytest.mark.parametrize("value", [None, 0, "", [], {}, False, 1.5, "text", [1, None], {"a": {"b": 1}}])
    async def test_every_json_value(self, value: Any) -> None:
        """False values are data too."""

        async def endpoint() -> Any:
            return value

        assert (await get(only(endpoint))).data() == value

    async def test_plain_functions_run_in_a_thread(self) -> None:
        """Sync stays sync: the loop is not blocked, and the request id is there."""

        def endpoint() -> list[str]:
            return [threading.current_thread().name, get_request_id()]

        reply = await get(only(endpoint))
        assert reply.data()[0] != threading.main_thread().name
        assert reply.data()[1] == reply.headers["x-request-id"]

    async def test_injected_headers_status_and_background_survive(self) -> None:
        """What FastAPI takes from parameters is on the enveloped reply."""
        ran: list[int] = []

        async def endpoint(response: fastapi.Response, tasks: BackgroundTasks) -> Item:
            response.headers["x-own"] = "1"
            response.set_cookie("a", "b")
            response.status_code = 201
            tasks.add_task(ran.append, 1)
            return Item(id=1)

        reply = await get(only(endpoint))
        assert (reply.status_code, reply.headers["x-own"], ran) == (201, "1", [1])
        assert "a=b" in reply.headers["set-cookie"]
        assert reply.data()["id"] == 1

    async def test_results_are_validated_and_filtered(self) -> None:
        """The declared type decides what leaves, as in FastAPI."""

        async def endpoint() -> Item:
            untyped: Any = {"id": 1, "secret": "x"}
            return untyped  # type: ignore[no-any-return]  # the point of the test

        assert (await get(only(endpoint))).data() == {"id": 1, "name": "lamp"}

    async def test_response_model_wins_over_the_annotation(self) -> None:
        """The option of the route is the type of the data."""

        async def endpoint() -> dict[str, object]:
            return {"id": 1, "secret": "x"}

        assert (await get(only(endpoint, response_model=Item))).data() == {"id": 1, "name": "lamp"}

    async def test_response_model_none_does_not_validate(self) -> None:
        """As in FastAPI, None switches validation off."""

        async def endpoint() -> Item:
            untyped: Any = {"id": "x"}
            return untyped  # type: ignore[no-any-return]  # the point of the test

        assert (await get(only(endpoint, response_model=None))).data() == {"id": "x"}

    async def test_a_result_that_does_not_fit_is_a_500(self) -> None:
        """The application is wrong, not the client."""

        async def endpoint() -> Item:
            untyped: Any = {"id": "x"}
            return untyped  # type: ignore[no-any-return]  # the point of the test

        assert (await get(only(endpoint))).status_code == 500

    async def test_a_union_with_a_response(self) -> None:
        """A route may return data or a response; the type of the data is the rest."""

        async def endpoint(raw: bool = False) -> Item | PlainTextResponse:
            return PlainTextResponse("raw") if raw else Item(id=2)

        assert (await get(only(endpoint))).data() == {"id": 2, "name": "lamp"}
        assert (await get(only(endpoint), path="/?raw=1")).text == "raw"

    async def test_objects_with_call_and_partials(self) -> None:
        """Every callable that FastAPI takes is wrapped according to its kind."""

        class Endpoint:
            async def __call__(self) -> list[int]:
                return [1]

        async def with_argument(item: int) -> list[int]:
            return [item]

        assert (await get(only(Endpoint()))).data() == [1]
        assert (await get(only(functools.partial(with_argument, 5)), path="/?item=5")).data() == [5]

    async def test_an_annotation_that_cannot_be_resolved(self) -> None:
        """It is an error, as in FastAPI: nothing is sent unchecked."""

        async def endpoint() -> Any:
            return 1

        endpoint.__annotations__["return"] = "NoSuchName"
        assert (await get(only(endpoint))).status_code == 500

    async def test_dependencies_and_bodies_work_as_ever(self) -> None:
        """Parameters are FastAPI's business."""
        app = create_app()

        @app.post("/")
        async def endpoint(
            item: Item, who: Annotated[str, Depends(ann)], n: Annotated[int, Body()]
        ) -> list[object]:
            return [item.id, who, n]

        async with AppClient(app) as client:
            reply = await client.post("/", json={"item": {"id": 3}, "n": 4})
            assert reply.data() == [3, "ann", 4]

    async def test_objects_that_pydantic_does_not_know(self) -> None:
        """They go through FastAPI's encoder."""

        class Row:
            def __init__(self) -> None:
                self.id = 1

        async def endpoint() -> Response:
            return Response([Row()])

        assert (await get(only(endpoint))).data() == [{"id": 1}]

    async def test_dataclasses_and_enums(self) -> None:
        """They are data like models."""

        class Color(Enum):
            RED = "red"

        @dataclass
        class Thing:
            color: Color

        async def endpoint() -> Any:
            return Thing(Color.RED)

        assert (await get(only(endpoint))).data() == {"color": "red"}


class Account(BaseModel):
    """A result with a part that must stay inside."""

    name: str
    password: str = "hunter2"
    nick: str | None = Field(default=None, serialization_alias="nickName")


class Columns(tuple[Any, ...]):
    """A row of a database: a tuple that says it is an object."""

    __slots__ = ()

    def __json_object__(self) -> dict[str, Any]:
        """Return names and values."""
        return dict(zip(("id", "name"), self, strict=True))


class TestLikeFastAPI:
    """FastAPI serialises the data; its options never touch the envelope."""

    @pytest.mark.parametrize(
        ("options", "data"),
        [
            ({"response_model_exclude": {"password"}}, {"name": "ann", "nickName": None}),
            ({"response_model_include": {"name"}}, {"name": "ann"}),
            ({"response_model_exclude_none": True}, {"name": "ann", "password": "hunter2"}),
            ({"response_model_exclude_unset": True}, {"name": "ann"}),
            ({"response_model_exclude_defaults": True}, {"name": "ann"}),
            (
                {"response_model_by_alias": False, "response_model_exclude": {"password"}},
                {"name": "ann", "nick": None},
            ),
        ],
    )
    @pytest.mark.parametrize("explicit", [False, True])
    async def test_options_of_the_model(
        self, options: dict[str, Any], data: dict[str, Any], *, explicit: bool
    ) -> None:
        """A hidden password stays hidden, and the five fields stay, whoever renders the JSON."""

        async def endpoint() -> Account:
            return Account(name="ann")

        chosen: dict[str, Any] = {"response_class": JSONResponse} if explicit else {}
        reply = await get(only(endpoint, **options, **chosen))
        assert reply.data() == data
        assert list(reply.json()) == ["code", "data", "msg", "request_id", "extra"]

    async def test_a_plain_decorator_around_a_coroutine_function(self) -> None:
        """FastAPI decides what is awaited."""

        def decorated(function: Callable[..., Any]) -> Any:
            @functools.wraps(function)
            def call(*args: Any, **kwargs: Any) -> Any:
                return function(*args, **kwargs)

            return call

        @decorated
        async def endpoint() -> int:
            return 7

        assert (await get(only(endpoint))).data() == 7

    async def test_the_default_class_of_an_inclusion(self) -> None:
        """A router that is included twice has the envelope only where JSON is sent."""
        router = APIRouter()

        @router.get("/")
        async def endpoint() -> Any:
            return "<b>"

        app = create_app()
        app.include_router(router, prefix="/html", default_response_class=HTMLResponse)
        app.include_router(router, prefix="/json")

        async with AppClient(app) as client:
            assert (await client.get("/html/")).text == "<b>"
            assert (await client.get("/json/")).data() == "<b>"

        paths = app.openapi()["paths"]
        assert list(paths["/html/"]["get"]["responses"]["200"]["content"]) == ["text/html"]
        assert "Envelope" in str(paths["/json/"]["get"]["responses"]["200"])

    async def test_plain_objects(self) -> None:
        """An ORM row or any other object, Decimal and timedelta, as FastAPI writes them."""

        class Plain:
            def __init__(self) -> None:
                self.price = Decimal("9.5")
                self.left = timedelta(seconds=90)
                self._sa_state = object()

        async def endpoint():
            return Plain()

        assert (await get(only(endpoint))).data() == {"price": 9.5, "left": 90.0}

    @pytest.mark.parametrize("result", [Any, list[dict[str, Any]], list[Any], list[Item], list[Item] | None])
    async def test_rows_are_objects(self, result: Any) -> None:
        """Rows of a database keep the names of their columns, typed or not."""

        async def endpoint() -> Any:
            return [Columns((1, "lamp"))]

        endpoint.__annotations__["return"] = result
        assert (await get(only(endpoint))).data() == [{"id": 1, "name": "lamp"}]

    @pytest.mark.parametrize("result", [list[tuple[int, str]], list[list[Any]]])
    async def test_rows_are_tuples_where_tuples_are_declared(self, result: Any) -> None:
        """The declared type decides."""

        async def endpoint() -> Any:
            return [Columns((1, "lamp"))]

        endpoint.__annotations__["return"] = result
        assert (await get(only(endpoint))).data() == [[1, "lamp"]]

    async def test_rows_inside(self) -> None:
        """Rows are found below dictionaries, lists and responses; named tuples are lists, as in FastAPI."""

        class Point(NamedTuple):
            x: int
            y: int

        async def endpoint() -> dict[str, Any]:
            return {"rows": [[Columns((1, "a"))], {"row": Columns((2, "b"))}], "point": Point(3, 4)}

        expected = {"rows": [[{"id": 1, "name": "a"}], {"row": {"id": 2, "name": "b"}}], "point": [3, 4]}
        assert (await get(only(endpoint))).data() == expected
        assert json.loads(bytes(Response([Columns((1, "a"))]).body))["data"] == [{"id": 1, "name": "a"}]

    @pytest.mark.parametrize("result", [Any, dict[str, float]])
    async def test_nan_is_never_sent(self, result: Any) -> None:
        """JSON has no NaN and no infinities; null is sent."""

        async def endpoint() -> Any:
            return {"x": float("nan"), "y": float("inf")}

        endpoint.__annotations__["return"] = result
        assert (await get(only(endpoint))).data() == {"x": None, "y": None}
        assert b"NaN" not in ok_raw({"x": float("nan")}).body

    @pytest.mark.parametrize("typed", [False, True])
    async def test_an_envelope_is_not_wrapped_twice(self, *, typed: bool) -> None:
        """An endpoint may build its envelope, which has the request's id then."""

        async def endpoint() -> Any:
            return Envelope[int](data=1, extra="mine")

        endpoint.__annotations__["return"] = Envelope[int] if typed else Any
        reply = await get(only(endpoint))
        assert (reply.json()["data"], reply.json()["request_id"]) == (1, reply.headers["x-request-id"])

    async def test_ready_json(self) -> None:
        """Bytes are JSON that is ready to be sent."""

        async def endpoint() -> Item:
            raw: Any = ok_raw(b'{"id":1}')
            return raw  # type: ignore[no-any-return]  # as the hot path is declared

        assert (await get(only(endpoint))).data() == {"id": 1}

    async def test_a_request_class_of_the_application(self) -> None:
        """A route class may replace the request, as FastAPI's documentation does."""

        class Upper(fastapi.Request):
            async def body(self) -> bytes:
                return (await super().body()).upper()

        class UpperRoute(APIRoute):
            def get_route_handler(self) -> Any:
                handle = super().get_route_handler()

                async def call(request: fastapi.Request) -> Any:
                    return await handle(Upper(request.scope, request.receive))

                return call

        router = APIRouter(route_class=UpperRoute)

        @router.post("/")
        async def endpoint(word: Annotated[str, Body()]) -> str:
            return word

        app = create_app()
        app.include_router(router)

        async with AppClient(app) as client:
            assert (await client.post("/", json="abc")).data() == "ABC"

    async def test_routes_are_declared_once(self) -> None:
        """The model of a response is built once, the envelope's when OpenAPI is read."""
        app = create_app()

        @app.get("/")
        async def endpoint(n: int) -> Item:
            return Item(id=n)

        route: Any = app.routes[-1]
        assert route.response_model is Item
        assert "_built" not in vars(route.response_field)


class TestNotWrapped:
    """What leaves the application as it is."""

    @pytest.mark.parametrize(
        "make",
        [
            lambda: PlainTextResponse("x"),
            lambda: HTMLResponse("x"),
            lambda: StreamingResponse(iter(["x"])),
            lambda: JSONResponse("x"),
            lambda: fastapi.Response("x"),
            lambda: FileResponse(__file__),
        ],
    )
    async def test_responses(self, make: Callable[[], Any]) -> None:
        """A response object is sent as it is."""

        async def endpoint() -> Any:
            return make()

        assert "request_id" not in (await get(only(endpoint))).text.partition("class")[0]

    async def test_redirects(self) -> None:
        """A redirect keeps status and location."""

        async def endpoint() -> RedirectResponse:
            return RedirectResponse("/other")

        reply = await get(only(endpoint))
        assert (reply.status_code, reply.headers["location"], reply.content) == (307, "/other", b"")

    @pytest.mark.parametrize("status", [204, 304, HTTPStatus.NO_CONTENT])
    async def test_statuses_without_a_body(self, status: int) -> None:
        """They have none."""

        async def endpoint() -> None:
            return None

        reply = await get(only(endpoint, status_code=status))
        assert (reply.status_code, reply.content) == (int(status), b"")

    async def test_other_response_classes(self) -> None:
        """A declared class that is not JSON decides."""

        async def endpoint() -> str:
            return "<b>"

        assert (await get(only(endpoint, response_class=HTMLResponse))).text == "<b>"

    async def test_generators_stream(self) -> None:
        """A generator endpoint streams its items, one per line."""

        async def endpoint() -> AsyncIterator[Any]:
            yield {"n": 1}
            yield {"n": 2}

        reply = await get(only(endpoint))
        assert "request_id" not in reply.text
        assert reply.text.count("\n") == 2

    async def test_routes_of_fastapi_routers(self) -> None:
        """Only our router wraps."""
        router = fastapi.APIRouter()

        @router.get("/")
        async def endpoint() -> int:
            return 1

        assert (await get(lambda app: app.include_router(router))).text == "1"

    async def test_ok_raw(self) -> None:
        """The hot path has the same shape and no validation."""

        async def endpoint() -> Item:
            raw: Any = ok_raw({"id": "not a number"}, extra=1, headers={"x-own": "1"})
            return raw  # type: ignore[no-any-return]  # as the hot path is declared

        reply = await get(only(endpoint))
        assert reply.data() == {"id": "not a number"}
        assert (reply.json()["extra"], reply.headers["x-own"]) == (1, "1")
