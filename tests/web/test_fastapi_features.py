"""Thirty features, drawn at random from FastAPI's documentation, as a new user would try them.

Each is declared on `FastAPI` and on `create_app`, and asked the same: replies are the same but for the
envelope, and so is what OpenAPI says. FastAPI's own tests run on ours too, in ``tools/conformance``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from tests.web._features import Kit, Made, ours, plain
from tests.web._reply_features import REPLY_FEATURES
from tests.web._request_features import REQUEST_FEATURES
from ws_web import Settings
from ws_web.testing import AppClient, Reply

# Any below: JSON.

FEATURES = (*REQUEST_FEATURES, *REPLY_FEATURES)


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.__name__)
async def test_as_in_fastapi(feature: Callable[[Kit], Made]) -> None:
    """Replies, conversations and OpenAPI are the same but for the envelope."""
    theirs, mine = await seen(feature, plain()), await seen(feature, ours())

    for expected, found in zip(theirs, mine, strict=True):
        assert found == expected


def test_there_are_thirty() -> None:
    """None is listed twice; two more were once different."""
    assert len(set(FEATURES)) == 32


async def seen(feature: Callable[[Kit], Made], kit: Kit) -> list[Any]:
    """Return what a client of an application sees."""
    app, asks = feature(kit)
    found: list[Any] = []

    async with AppClient(app) as client:
        for method, path, options in asks:
            found.append((method, path, unwrapped(await client.request(method, path, **options))))

        for path in kit.sockets:
            async with client.websocket(path) as socket:
                await socket.send_text("hello")
                found.append(await socket.receive_text())

    return [*found, *described(app.openapi())]


OURS = {"content-length", "vary", "x-request-id", "x-timestamp", *Settings().SECURITY_HEADERS}
ENVELOPE = {"code", "data", "msg", "request_id", "extra"}


def unwrapped(reply: Reply) -> tuple[int, object, list[tuple[str, str]]]:
    """Return status, body without the envelope, and headers that are not only ours."""
    headers = sorted((name, value) for name, value in reply.headers.items() if name not in OURS)

    try:
        found: Any = json.loads(reply.content)
    except ValueError:
        return reply.status_code, reply.content, [] if reply.status_code >= 400 else headers

    if isinstance(found, dict) and set(found) == ENVELOPE:
        if reply.status_code < 400:
            assert (found["code"], found["msg"]) == (0, "Success")
            found = found["data"]
        else:
            found = {"detail": found["msg"] if found["data"] is None else found["data"]}

    return reply.status_code, found, headers


def described(document: dict[str, Any]) -> Iterable[object]:
    """Yield the operations and schemas of OpenAPI, without envelopes and the schemas of 422."""
    schemas = document.get("components", {}).get("schemas", {})

    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            responses = {
                status: bare(status, response, schemas) for status, response in operation["responses"].items()
            }
            yield path, method, {**operation, "responses": responses}

    errors = {"HTTPValidationError", "ValidationError", "Problem"}
    yield {
        name: schema
        for name, schema in schemas.items()
        if name not in errors and not name.startswith("Envelope_")
    }


def bare(status: str, response: dict[str, Any], schemas: dict[str, Any]) -> object:
    """Return a response with the schema of its data, without the title that is made of the operation's."""
    if status == "422":
        return response["description"]

    content = {}

    for media, described_as in response.get("content", {}).items():
        schema = described_as.get("schema", {})
        name = schema.get("$ref", "").rpartition("/")[2]

        if name.startswith("Envelope_"):
            schema = schemas[name]["properties"]["data"]

        content[media] = {key: value for key, value in schema.items() if key != "title"}

    return {**response, "content": content}
