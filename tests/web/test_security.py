"""What is tried against every service; each other entry of the list has a test beside what it tries.

Request ids (`test_middlewares.py`), forged log lines (`test_access_log.py`, `test_exception_handlers.py`),
spoofed addresses (`test_request.py`), WebSockets of other sites (`test_origin.py`), peers that do not read
(`test_server.py`), large bodies (`test_body_limit.py`), slow clients (`test_restart.py`), nesting, NaN and
surrogates (`test_json.py`, `test_envelope.py`), cursors and keys (`test_pages.py`, `test_idempotency.py`).
"""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fastapi import FastAPI, Header
from hypothesis import given
from hypothesis import strategies as st
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ws_web import Settings, create_app
from ws_web.testing import AppClient

SECRET = "planted-9f2c"


@pytest.fixture
def app() -> FastAPI:
    """An application with a secret in its settings and a handler that fails with it."""
    app = create_app(Settings(SECRET=SECRET))
    app.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"], allow_credentials=True)

    @app.get("/boom")
    async def boom() -> None:
        raise ValueError(f"password={SECRET}")

    @app.post("/item")
    async def item(body: dict[str, int], token: str = Header()) -> int:
        return len(body)

    return app


class TestHosts:
    """A host that holds a path or a query."""

    @pytest.mark.parametrize("host", ["x/health?", "x/readyz#", "x@y", "x y", "", "\xff"])
    async def test_it_routes_nothing(self, app: FastAPI, host: str) -> None:
        """The path of the request decides, and the reply does not repeat the host."""
        async with AppClient(app) as client:
            reply = await client.get("/nothing", headers={"host": host})

        assert (reply.status_code, reply.error()["code"]) == (404, 404)

    async def test_trusted_hosts(self) -> None:
        """Starlette's middleware may refuse them, inside the envelope's boundary."""
        app = create_app()
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["shop.example"])

        async with AppClient(app) as client:
            assert (await client.get("/livez", headers={"host": "evil.example"})).status_code == 400
            assert (await client.get("/livez", headers={"host": "shop.example"})).status_code == 200


class TestOrigins:
    """Pages of other sites."""

    @pytest.mark.parametrize("path", ["/livez", "/boom", "/nothing"])
    async def test_they_read_nothing(self, app: FastAPI, path: str) -> None:
        """Neither replies nor errors carry headers that would let them."""
        async with AppClient(app) as client:
            evil = await client.get(path, headers={"origin": "https://evil.example"})
            preflight = await client.request(
                "OPTIONS",
                path,
                headers={"origin": "https://evil.example", "access-control-request-method": "GET"},
            )

        assert "access-control-allow-origin" not in evil.headers
        assert "access-control-allow-origin" not in preflight.headers


class TestSecrets:
    """A planted secret."""

    async def test_no_reply_has_it(self, app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
        """Neither in bodies nor in headers; what was sent is not repeated."""
        paths = ("/boom", "/nothing", "/livez", "/readyz", "/openapi.json")

        async with AppClient(app) as client:
            replies = [await client.get(path) for path in paths]
            headers = {"token": SECRET, "content-type": "application/json"}
            replies.append(await client.post("/item", headers=headers, content=f'{{"a": "{SECRET}"}}'))
            replies.append(await client.post("/item", headers=headers, content=SECRET))

        for reply in replies:
            assert SECRET not in reply.text + str(reply.headers)

        said = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
        assert not [line for line in said if SECRET in line]


@given(
    path=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    query=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40),
    headers=st.dictionaries(
        st.sampled_from(["accept", "accept-language", "content-type", "cookie", "origin", "range", "token"]),
        st.text(st.characters(max_codepoint=255), max_size=40),
    ),
    body=st.binary(max_size=60),
)
async def test_nothing_makes_a_500(path: str, query: str, headers: Any, body: bytes) -> None:
    """Whatever the path, query, headers and body are."""
    app = create_app(Settings(ACCESS_LOG="off"))

    @app.api_route("/{rest:path}", methods=["GET", "POST"])
    async def endpoint(rest: str, body: Any = None, n: int = 0) -> Any:
        return [rest, body, n]

    client = AppClient(app)

    for method in ("GET", "POST", "BREW"):
        reply = await client.request(method, "/", headers=headers, content=body, params={"n": query})
        assert reply.status_code < 500
        reply = await client.request(method, f"/{path}".split("?")[0], headers=headers, content=body)
        assert reply.status_code < 500
