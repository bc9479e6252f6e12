"""The request's properties, above all: who is the client."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import HTTPException
from pydantic import BaseModel
from starlette.requests import Request as StarletteRequest

from ws_web import APIRoute, APIRouter, Request, Settings, SettingsError, create_app
from ws_web._client_ip import client_ip, networks
from ws_web.testing import AppClient

PROXIES = networks(("10.0.0.0/8", "fd00::/8", "192.0.2.1"))


class Item(BaseModel):
    """A body."""

    id: int


class TestClientIP:
    """X-Forwarded-For is believed only as far as our own proxies wrote it."""

    @pytest.mark.parametrize(
        ("peer", "forwarded", "expected"),
        [
            ("203.0.113.5", ["1.1.1.1"], "203.0.113.5"),
            ("10.0.0.1", [], "10.0.0.1"),
            ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", ["6.6.6.6, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", ["6.6.6.6", "198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", ["127.0.0.1, nonsense"], "10.0.0.1"),
            ("10.0.0.1", ["198.51.100.7, "], "10.0.0.1"),
            ("10.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
            ("fd00::1", ["[2001:db8::7]:443"], "2001:db8::7"),
            ("fd00::1", ["2001:0db8:0::0007"], "2001:db8::7"),
            ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
            ("192.0.2.1", ["198.51.100.7"], "198.51.100.7"),
            ("192.0.2.2", ["198.51.100.7"], "192.0.2.2"),
            (None, ["198.51.100.7"], None),
            ("/run/app.sock", ["198.51.100.7"], "/run/app.sock"),
        ],
    )
    def test_chains(self, peer: str | None, forwarded: list[str], expected: Any) -> None:
        """From right to left, as long as the proxies are ours."""
        assert client_ip(peer, forwarded, PROXIES) == expected

    def test_nobody_is_trusted_by_default(self) -> None:
        """Without TRUSTED_PROXIES the header is nothing."""
        assert client_ip("127.0.0.1", ["6.6.6.6"], ()) == "127.0.0.1"

    def test_wrong_networks_are_refused_early(self) -> None:
        """When the settings are made, not with the first request."""
        with pytest.raises(SettingsError, match="TRUSTED_PROXIES"):
            Settings(TRUSTED_PROXIES=["10.0.0.0/8", "nonsense"])


class TestProperties:
    """The properties of the original."""

    async def test_all_of_them(self) -> None:
        """Inside a route of ours."""
        app = create_app(Settings(TRUSTED_PROXIES=["127.0.0.0/8"]))

        @app.post("/items/{item}", tags=["shop"])
        async def endpoint(item: int, request: Request) -> dict[str, object]:
            return {
                "id": request.request_id,
                "ip": request.client_ip,
                "host": request.client_host,
                "xff": request.x_forwarded_for,
                "referer": request.referer,
                "type": request.content_type,
                "length": request.content_length,
                "path": request.path,
                "tags": request.tags,
                "route": request.route.path if request.route else None,
                "own": request.get_header("X-Own"),
                "default": request.get_header("x-none", "d"),
                "none": request.get_header("x-none"),
                "debug": request.debug_info,
            }

        headers = {
            "x-request-id": "r-1",
            "x-forwarded-for": "6.6.6.6, 198.51.100.7",
            "referer": "http://a",
            "content-type": "text/plain",
            "x-own": "1",
            "authorization": "Bearer hunter2",
            "cookie": "s=hunter2",
            "x-csrf-token": "hunter2",
            "x-from": "http://a/?token=hunter2",
        }

        async with AppClient(app) as client:
            reply = await client.post("/items/7?q=1&token=hunter2", headers=headers, content="abc")

        data = reply.data()
        debug = data.pop("debug")
        assert data == {
            "id": "r-1",
            "ip": "198.51.100.7",
            "host": "127.0.0.1",
            "xff": "6.6.6.6",
            "referer": "http://a",
            "type": "text/plain",
            "length": 3,
            "path": "/items/{item}",
            "tags": ["shop"],
            "route": "/items/{item}",
            "own": "1",
            "default": "d",
            "none": None,
        }
        assert (debug["path"], debug["query_string"], debug["method"]) == (
            "/items/7",
            "q=1&token=***",
            "POST",
        )
        assert "hunter2" not in reply.text

    def test_bare(self) -> None:
        """Without application, route and peer nothing fails."""
        request = Request(
            {"type": "http", "path": "/x", "headers": [(b"content-length", b"1x")], "client": None}
        )
        assert isinstance(request, StarletteRequest)
        assert (request.client_ip, request.path, request.tags, request.route) == (None, "/x", [], None)
        assert (request.content_length, request.x_forwarded_for, request.request_id) == (0, "", "")


class TestPrepare:
    """The hook of APIRoute."""

    async def test_prepare_sees_the_request_before_dependencies(self) -> None:
        """It may refuse, and it gets our Request."""
        seen = []

        class Checked(APIRoute):
            async def prepare(self, request: Any) -> None:
                seen.append((type(request), request.path))

                if request.get_header("x-deny") is not None:
                    raise HTTPException(403, "no")

        router = APIRouter(route_class=Checked)

        @router.post("/{n}")
        async def endpoint(n: int, item: Item) -> int:
            return n + item.id

        app = create_app()
        app.include_router(router)

        async with AppClient(app) as client:
            assert (await client.post("/1", json={"id": 2})).data() == 3
            assert (await client.post("/x", headers={"x-deny": "1"})).error()["code"] == 403

        assert seen == [(Request, "/{n}"), (Request, "/{n}")]
