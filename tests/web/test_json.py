"""JSON of clients that is hard to work with: it is sent back or refused, and never a 500."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from fastapi import Body
from fastapi.responses import JSONResponse

from ws_web import Request, create_app
from ws_web.testing import AppClient


class TestHostileBodies:
    """No body of a client makes a 500."""

    @pytest.mark.parametrize("options", [{}, {"response_class": JSONResponse}])
    @pytest.mark.parametrize("result", [None, Any, dict[str, Any]])
    async def test_what_cannot_be_written_as_utf_8(self, result: Any, options: dict[str, Any]) -> None:
        """Half of a surrogate pair and NaN, which JSON may bring in, can be sent back."""
        app = create_app()

        async def endpoint(request: Request) -> Any:
            return await request.json()

        endpoint.__annotations__["return"] = result

        if result is None:
            del endpoint.__annotations__["return"]

        app.post("/", **options)(endpoint)

        async with AppClient(app) as client:
            reply = await client.post("/", content=b'{"a": ["\\udfff", NaN]}')
            assert reply.data() == {"a": ["\udfff", None]}

    @pytest.mark.parametrize("depth", [200, 201, 800, 10_000, 200_000])
    @pytest.mark.parametrize("shape", [('{"a":', "}"), ("[", "]"), ('["\\ud800",', "]")])
    async def test_deep_bodies(self, depth: int, shape: tuple[str, str]) -> None:
        """A body is sent back, or refused with 400: no depth makes a 500."""
        app = create_app()

        @app.post("/")
        async def endpoint(item: Annotated[Any, Body()]) -> Any:
            return item

        body = shape[0] * depth + "1" + shape[1] * depth

        async with AppClient(app) as client:
            reply = await client.post("/", content=body, headers={"content-type": "application/json"})
            assert reply.status_code == (200 if depth == 200 else 400)

            if depth > 200:
                assert reply.error()["msg"] == "the JSON is nested deeper than 200 levels"


async def test_nan_of_a_response_class_of_the_users() -> None:
    """A class that writes NaN bare does not make the envelope unreadable."""

    class Plain(JSONResponse):
        def render(self, content: Any) -> bytes:
            return json.dumps(content).encode()

    app = create_app()

    @app.get("/", response_class=Plain)
    async def numbers() -> dict[str, float]:
        return {"x": float("nan"), "y": 1.5}

    async with AppClient(app) as client:
        assert (await client.get("/")).data() == {"x": None, "y": 1.5}


class TestNotJson:
    """A body that a handler reads by itself."""

    @pytest.mark.parametrize(
        "body", [b"", b"{", b"[1,]", b"\xfe\x80", b'{"a": \xff}', b"9" * 5000, " \u2028{}".encode()]
    )
    @pytest.mark.parametrize("catches", [False, True])
    async def test_it_is_refused(self, body: bytes, *, catches: bool) -> None:
        """The client gets 400, unless the handler catches Starlette's error."""
        app = create_app()

        @app.post("/")
        async def read(request: Request) -> Any:
            try:
                return await request.json()
            except ValueError:
                if catches:
                    return "caught"

                raise

        async with AppClient(app) as client:
            reply = await client.post("/", content=body)

        assert (reply.status_code, reply.envelope()["data"]) == ((200, "caught") if catches else (400, None))

    async def test_the_place_is_told(self) -> None:
        """It is a `json.JSONDecodeError` as before, and the refusal says where it stopped."""
        app = create_app()
        seen: list[json.JSONDecodeError] = []

        @app.post("/")
        async def read(request: Request) -> Any:
            try:
                return await request.json()
            except json.JSONDecodeError as error:
                seen.append(error)
                raise

        async with AppClient(app) as client:
            reply = await client.post("/", content=b'{"a": tru}')

        assert reply.error()["msg"] == "The body is not JSON: Expecting value: line 1 column 7 (char 6)"
        assert (seen[0].pos, seen[0].doc) == (6, '{"a": tru}')
