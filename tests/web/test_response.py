"""Responses that routes make or raise by themselves."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

from fastapi import Depends
from starlette.background import BackgroundTask

from tests.web._support import get, only, refuse
from ws_web import (
    APIRouter,
    ErrResponse,
    HTTP400Response,
    HTTP404Response,
    HTTP405Response,
    HTTP500Response,
    HTTPExceptionResponse,
    Response,
    create_app,
)
from ws_web.testing import AppClient


class TestResponse:
    """The response of the original."""

    def test_codes(self) -> None:
        """Ints, strings and Enum members; the member's value is the code."""

        class Code(Enum):
            SOLD_OUT = 4001

        response = Response(code=Code.SOLD_OUT)
        assert (response.code, response.msg, response.ok) == (4001, "Sold out", False)
        assert Response().ok
        assert Response(code="E1").msg == "Unknown Error"
        assert Response(code=404).msg == "Not Found"

    def test_an_enum_may_carry_its_texts(self) -> None:
        """A member's msg attribute is the text."""

        class Code(Enum):
            SOLD_OUT = 4001

            @property
            def msg(self) -> Any:
                return "nothing left"

        assert Response(code=Code.SOLD_OUT).msg == "nothing left"

    def test_build_msg_can_be_overridden(self) -> None:
        """As in the original."""

        class Own(Response):
            def build_msg(self) -> Any:
                return f"code {self.code}"

        assert Own(code=3).msg == "code 3"

    def test_ready_made_responses(self) -> None:
        """Those of the original, with status and code alike."""
        for cls, status in (
            (HTTP400Response, 400),
            (HTTP404Response, 404),
            (HTTP405Response, 405),
            (HTTP500Response, 500),
        ):
            response = cls()
            assert (response.status_code, response.code) == (status, status)

        assert HTTP400Response(["x"]).data == ["x"]
        refusal = HTTPExceptionResponse(418, {"pot": 1}, headers={"x-a": "1"})
        assert (refusal.status_code, refusal.data, refusal.msg) == (418, {"pot": 1}, "I'm a Teapot")
        assert HTTPExceptionResponse().msg == "Service Unavailable"

    async def test_extra_headers_and_background(self) -> None:
        """A Response is sent as it was made."""
        ran: list[int] = []

        async def endpoint() -> Response:
            background = BackgroundTask(ran.append, 1)
            return Response(1, 2, 202, {"page": 1}, msg="m", headers={"x-a": "b"}, background=background)

        reply = await get(only(endpoint))
        body = reply.json()
        assert (reply.status_code, body["code"], body["extra"], body["msg"]) == (202, 2, {"page": 1}, "m")
        assert (reply.headers["x-a"], ran) == ("b", [1])

    async def test_raised_from_below(self) -> None:
        """ErrResponse ends the request from anywhere, dependencies included."""

        async def endpoint(_: Annotated[None, Depends(refuse)]) -> int:
            return 1

        reply = await get(only(endpoint))
        assert reply.status_code == 409
        assert reply.error() | {"request_id": ""} == {
            "code": 4001,
            "data": ["details"],
            "msg": "sold out",
            "request_id": "",
            "extra": None,
        }

    async def test_err_response_default_status(self) -> None:
        """As in the original the status is 200 unless another is passed; its text says code and message."""
        error = ErrResponse(code=7, msg="x")
        assert (error.status_code, str(error)) == (200, "7: x")

        async def endpoint() -> int:
            raise ErrResponse(code=7)

        assert (await get(only(endpoint))).status_code == 200

    async def test_a_default_response_class(self) -> None:
        """One that is a response of ours puts the envelope around plain data, once and with its own texts."""

        class Mine(Response):
            def build_msg(self) -> str:
                return "fine"

        router = APIRouter(default_response_class=Mine)

        @router.get("/plain")
        async def plain() -> list[int]:
            return [1, 2]

        @router.get("/own", response_class=Response)
        async def own() -> Any:
            return {"a": 1}

        app = create_app()
        app.include_router(router)
        client = AppClient(app)
        reply = (await client.get("/plain")).envelope()
        assert (reply["data"], reply["msg"]) == ([1, 2], "fine")
        reply = (await client.get("/own")).envelope()
        assert (reply["data"], reply["msg"]) == ({"a": 1}, "Success")
        schema = app.openapi()["paths"]["/plain"]["get"]["responses"]["200"]["content"]["application/json"]
        assert "Envelope" in schema["schema"]["$ref"]
