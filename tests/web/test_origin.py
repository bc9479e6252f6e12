"""Which pages may open WebSockets."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket

from ws_web import Settings, create_app
from ws_web._origin import is_allowed
from ws_web.testing import AppClient, SocketClosed


def app_with_socket(**options: Any) -> FastAPI:
    """Return an application with one WebSocket route, which notes that it was called."""
    app = create_app(Settings(**options))
    app.state.called = []

    @app.websocket("/ws")
    async def endpoint(ws: WebSocket) -> None:
        app.state.called.append(1)
        await ws.accept()
        await ws.close()

    return app


class TestOrigins:
    """The decision."""

    @pytest.mark.parametrize(
        ("origin", "host", "expected"),
        [
            ("https://shop.example", "shop.example", True),
            ("https://shop.example:443", "shop.example", True),
            ("http://shop.example:8080", "shop.example:8080", True),
            ("http://[::1]:8080", "[::1]:8080", True),
            ("https://SHOP.example", "shop.example", True),
            ("https://evil.example", "shop.example", False),
            ("https://shop.example.evil.example", "shop.example", False),
            ("https://evil.example/shop.example", "shop.example", False),
            ("https://shop.example@evil.example", "shop.example", False),
            ("http://shop.example:3000", "shop.example:8080", False),
            ("null", "shop.example", False),
            ("", "", False),
            ("https://[", "shop.example", False),
        ],
    )
    def test_same_host(self, origin: str, host: str, expected: bool) -> None:
        """The host of the page is the host that it calls."""
        assert is_allowed(origin, host, ()) is expected

    def test_allowed_origins(self) -> None:
        """Further ones are named, or all."""
        assert is_allowed("https://front.example", "api.example", {"https://front.example"})
        assert not is_allowed("http://front.example", "api.example", {"https://front.example"})
        assert is_allowed("https://any.example", "api.example", {"*"})


class TestHandshake:
    """What a client gets."""

    async def test_another_site_is_refused_before_accept(self, caplog: pytest.LogCaptureFixture) -> None:
        """The route is not called, and the log names the setting, once per origin."""
        app = app_with_socket()

        async with AppClient(app) as client:
            for _ in range(3):
                with pytest.raises(SocketClosed):
                    async with client.websocket("/ws", headers={"origin": "https://evil.example"}):
                        pass

        assert app.state.called == []
        lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(lines) == 1
        assert "ALLOWED_ORIGINS" in lines[0]

    @pytest.mark.parametrize(
        "headers", [{}, {"origin": "http://testserver"}, {"origin": "https://ok.example"}]
    )
    async def test_others_are_served(self, headers: dict[str, str]) -> None:
        """Programs without an origin, our own pages, and those that the settings name."""
        app = app_with_socket(ALLOWED_ORIGINS=["https://ok.example/"])

        async with AppClient(app) as client, client.websocket("/ws", headers=headers):
            pass

        assert app.state.called == [1]

    async def test_the_refusal_is_an_answer_where_the_server_can_give_one(self) -> None:
        """403 in the envelope."""
        app = app_with_socket()
        client = AppClient(app)
        scope = client._scope("websocket", "/ws", [("origin", "https://evil.example")], None)
        scope.update(scheme="ws", subprotocols=[], extensions={"websocket.http.response": {}})
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)
        assert (sent[0]["type"], sent[0]["status"]) == ("websocket.http.response.start", 403)
        assert b'"code":403' in sent[1]["body"]
