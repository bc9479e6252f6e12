"""How OpenAPI describes the envelope of a route."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from tests.web._support import only
from ws_web import (
    APIRouter,
    Request,
    create_app,
)
from ws_web._envelope import _Documented
from ws_web.testing import AppClient


class Item(BaseModel):
    """A typed result."""

    id: int
    name: str = "lamp"


class TestOpenAPI:
    """What is documented is what is sent."""

    def schema(self, declare: Callable[[FastAPI], object]) -> Any:
        """Return the document of an application with one route."""
        app = create_app()
        declare(app)
        return app.openapi()

    def test_the_envelope_of_the_type(self) -> None:
        """The response model is Envelope[T]."""

        async def endpoint() -> list[Item]:
            return []

        document = self.schema(only(endpoint))
        content = document["paths"]["/"]["get"]["responses"]["200"]["content"]["application/json"]
        name = content["schema"]["$ref"].rpartition("/")[2]
        data = document["components"]["schemas"][name]["properties"]["data"]
        assert data == {"items": {"$ref": "#/components/schemas/Item"}, "type": "array", "title": "Data"}

    def test_validation_errors_are_described_as_they_are_sent(self) -> None:
        """Status 422 has the envelope too, and only where a request can fail to fit."""

        async def endpoint(n: int) -> int:
            return n

        async def without() -> int:
            return 1

        document = self.schema(only(endpoint))
        reference = document["paths"]["/"]["get"]["responses"]["422"]["content"]["application/json"]["schema"]
        assert "Problem" in reference["$ref"]
        assert "HTTPValidationError" not in document["components"]["schemas"]
        assert "422" not in self.schema(only(without))["paths"]["/"]["get"]["responses"]

    def test_a_described_422_is_left_alone(self) -> None:
        """The application's own description wins."""

        async def endpoint(n: int) -> int:
            return n

        responses = self.schema(only(endpoint, responses={422: {"description": "mine"}}))["paths"]["/"]["get"]
        assert responses["responses"]["422"] == {"description": "mine"}

    def test_health_is_not_part_of_it(self) -> None:
        """Probes are not an API."""
        assert self.schema(lambda _: None)["paths"] == {}

    async def test_included_routers_keep_the_envelope(self) -> None:
        """Prefixes, tags and dependencies of inclusion come on top."""
        router = APIRouter(prefix="/b", tags=["inner"])

        @router.get("/{n}")
        async def endpoint(n: int, request: Request) -> list[object]:
            return [n, request.path, request.tags]

        app = create_app()
        outer = APIRouter(prefix="/a")
        outer.include_router(router)
        app.include_router(outer, prefix="/v1")

        async with AppClient(app) as client:
            assert (await client.get("/v1/a/b/7")).data()[:2] == [7, "/v1/a/b/{n}"]

        schema = app.openapi()["paths"]["/v1/a/b/{n}"]["get"]["responses"]["200"]["content"]
        assert "Envelope" in schema["application/json"]["schema"]["$ref"]


class Node(BaseModel):
    """A model that holds itself."""

    name: str
    children: list[Node] = []


async def test_a_model_that_holds_itself() -> None:
    """It is read once, serialised as FastAPI does, and documented."""
    app = create_app()

    @app.get("/tree")
    async def tree() -> Node:
        return Node(name="a", children=[Node(name="b")])

    async with AppClient(app) as client:
        reply = await client.get("/tree")
        assert reply.json()["data"] == {"name": "a", "children": [{"name": "b", "children": []}]}
        assert "Node" in (await client.get("/openapi.json")).text


def test_what_documents_an_envelope() -> None:
    """The field is built when it is read, and not for a look at what it is not."""
    field = _Documented(int, "data")

    with pytest.raises(AttributeError):
        field.__wrapped__  # noqa: B018 - looked at by inspect

    assert field.name == "data"
