"""A pytest plugin that puts `create_app` in FastAPI's place while FastAPI's own tests run.

Each ``FastAPI()`` becomes ``create_app()`` with default settings, but for DEBUG, since FastAPI repeats inputs
in validation errors and we do so only there, and without our probes. Routers are ours. The envelope is
taken off on the way out, and off OpenAPI. Nothing else is changed: a test that fails shows a difference.
"""

from __future__ import annotations

import re
from typing import Any

import fastapi
import fastapi.applications
import fastapi.openapi.utils
from pydantic_core import from_json, to_json

import ws_web
from tools.conformance._envelopes import FIELDS, refused_with
from ws_web._declarations import DeclaringRoutes
from ws_web.app import Application, create_app
from ws_web.conf import Settings

# Any below: documents and replies of FastAPI's tests.

_Real = fastapi.FastAPI
_get_openapi = fastapi.openapi.utils.get_openapi


class _Substitute(type):
    """The class of a class whose instances are our applications."""

    def __call__(cls, *args: Any, **options: Any) -> Any:
        if cls is FastAPI:
            return create_app(Settings(DEBUG=True), health=False, **options)

        return super().__call__(*args, **options)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _Real) if cls is FastAPI else super().__instancecheck__(instance)


class FastAPI(DeclaringRoutes, _Real, metaclass=_Substitute):
    """What FastAPI's tests get when they import FastAPI."""


_SUCCESS = re.compile(
    rb'\{"code":0,"data":(.*),"msg":"Success","request_id":"[^"]*","extra":null\}', re.DOTALL
)


def bare(status: int, body: bytes) -> bytes:
    """Return a body as FastAPI would have sent it, without the envelope."""
    if success := _SUCCESS.fullmatch(body):
        return success[1]

    try:
        error = from_json(body)
    except ValueError:
        return body

    if not isinstance(error, dict) or set(error) != FIELDS:
        return body

    if status == 500:
        return b"Internal Server Error"

    return to_json({"detail": error["msg"] if error["data"] is None else error["data"]})


class Bare:
    """An ASGI `send` that takes the envelope off replies that are sent in one part."""

    def __init__(self, send: Any) -> None:
        self._send = send
        self._start: Any = None

    async def __call__(self, message: Any) -> None:
        """Hold a reply's start back until its body is known."""
        kind = message["type"].removeprefix("websocket.")

        if kind == "http.response.start":
            self._start = message
            return

        if kind == "http.response.body" and self._start is not None:
            start, self._start = self._start, None
            body = bytes(message.get("body", b""))

            if kind != message["type"] and (closed := refused_with(body)) is not None:
                await self._send(closed)
                return

            if body:  # a middleware may send it as the first of two parts, the second of which is empty
                body = bare(start["status"], body)
                message = {**message, "body": body}
                start["headers"] = [
                    (name, str(len(body)).encode() if name == b"content-length" else value)
                    for name, value in start["headers"]
                ]

            await self._send(start)

        await self._send(message)


async def _call(self: Any, scope: Any, receive: Any, send: Any) -> None:
    await _real_call(self, scope, receive, send if scope["type"] == "lifespan" else Bare(send))


_real_call = Application.__call__
Application.__call__ = _call  # type: ignore[method-assign]  # the point of the plugin


def get_openapi(*args: Any, **options: Any) -> dict[str, Any]:
    """Return the document with the envelope taken off the schemas."""
    document = _get_openapi(*args, **options)
    schemas = document.get("components", {}).get("schemas", {})
    envelopes = {name for name in schemas if re.search(r"(^|__)Envelope_", name)}

    for methods in [*document.get("paths", {}).values(), *document.get("webhooks", {}).values()]:
        for operation in methods.values():
            if isinstance(operation, dict):
                _unwrap_operation(operation, schemas, envelopes)

    for name in envelopes:
        del schemas[name]

    if envelopes:
        schemas.pop("Problem", None)

        if "HTTPValidationError" in str(document):
            utils = fastapi.openapi.utils
            schemas["ValidationError"] = utils.validation_error_definition
            schemas["HTTPValidationError"] = utils.validation_error_response_definition

        document["components"]["schemas"] = dict(sorted(schemas.items()))

        if not schemas:
            del document["components"]["schemas"]

            if not document["components"]:
                del document["components"]

    return document


def _unwrap_operation(operation: dict[str, Any], schemas: dict[str, Any], envelopes: set[str]) -> None:
    """Put the schema of the data in the place of its envelope."""
    for status, response in operation.get("responses", {}).items():
        for content in response.get("content", {}).values():
            name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]

            if name not in envelopes:
                continue

            if name == "Envelope_list_Problem__" or (status == "422" and "Problem" in name):
                content["schema"] = {"$ref": "#/components/schemas/HTTPValidationError"}
                continue

            data = dict(schemas[name]["properties"]["data"])

            if data == {"title": "Data"}:
                data = {}
            elif "title" in data and "$ref" not in data and data["title"] == "Data":
                data["title"] = f"Response {operation['operationId'].replace('_', ' ').title()}"

            content["schema"] = data

    for callback in operation.get("callbacks", {}).values():
        for methods in callback.values():
            for inner in methods.values():
                _unwrap_operation(inner, schemas, envelopes)


fastapi.FastAPI = FastAPI  # type: ignore[misc]  # the point of the plugin
fastapi.APIRouter = ws_web.APIRouter  # type: ignore[misc]
fastapi.openapi.utils.get_openapi = get_openapi
vars(fastapi.applications)["get_openapi"] = get_openapi
