"""Dependencies: components, clients, rate limits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import MappingProxyType, SimpleNamespace
from typing import Annotated, Any

import pytest
from fastapi import Depends, WebSocket
from fastapi.responses import StreamingResponse

from ws_core.errors import NotReadyError, UsageError
from ws_web import create_app
from ws_web.dependencies import client, component, rate_limit
from ws_web.testing import AppClient, SocketClosed

EVENTS: list[str] = []


class Manager:
    """A pool manager as far as the dependency needs one."""

    @asynccontextmanager
    async def get_client(self, name: str, *, alone: bool) -> AsyncIterator[Any]:
        """Return a client, and note that it was released."""
        EVENTS.append(f"acquired {name} {alone}")
        yield f"client of {name}"
        EVENTS.append("back")


Redis = Annotated[str, Depends(client("REDIS_CONFIG", "cache", alone=True))]
Own = Annotated[object, Depends(component("REDIS_CONFIG"))]
Missing = Annotated[object, Depends(component("NOSUCH"))]


async def repository(redis: Redis) -> AsyncIterator[str]:
    """A dependency of the application, which needs its client to the end."""
    yield redis
    EVENTS.append("end of the repository")


class Limiter:
    """Allow a number of hits per key."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.hits: list[tuple[str, int]] = []

    async def hit(self, key: Any, cost: int = 1) -> Any:
        """Count."""
        self.hits.append((key, cost))
        allowed = sum(c for k, c in self.hits if k == key) <= self.limit
        return SimpleNamespace(allowed=allowed, retry_after=0.0 if allowed else 1.2)


class TestClients:
    """Clients come back, whatever happens."""

    @pytest.mark.parametrize("nested", [True, False])
    async def test_a_client_is_acquired_for_the_request(self, nested: bool) -> None:
        """From a component, or its manager."""
        EVENTS.clear()
        app = create_app()
        app.state.components = {"REDIS_CONFIG": SimpleNamespace(manager=Manager()) if nested else Manager()}

        @app.get("/")
        async def endpoint(redis: Redis, own: Own) -> str:
            EVENTS.append("used")
            assert own is app.state.components["REDIS_CONFIG"]
            return redis

        @app.get("/fail")
        async def fail(redis: Redis) -> str:
            raise ValueError(redis)

        web = AppClient(app)
        assert (await web.get("/")).data() == "client of cache"
        assert EVENTS == ["acquired cache True", "used", "back"]

    async def test_several_windows(self) -> None:
        """All must allow a request; what a shorter one refuses does not count in a longer one."""
        short, long = Limiter(2), Limiter(3)
        app = create_app()

        @app.get("/", dependencies=[Depends(rate_limit([short, lambda _: long]))])
        async def endpoint() -> int:
            return 1

        async with AppClient(app) as client:
            statuses = [(await client.get("/")).status_code for _ in range(3)]
            assert (statuses, len(long.hits)) == ([200, 200, 429], 2)
            short.limit = 100
            assert [(await client.get("/")).status_code for _ in range(2)] == [200, 429]

    async def test_websockets_too(self) -> None:
        """The dependency works for every connection."""
        app = create_app()
        app.state.components = MappingProxyType({"REDIS_CONFIG": Manager()})

        @app.websocket("/")
        async def endpoint(ws: WebSocket, redis: Redis) -> None:
            await ws.accept()
            await ws.send_text(redis)

        async with AppClient(app).websocket("/") as socket:
            assert await socket.receive_text() == "client of cache"

    async def test_a_section_that_is_not_set(self) -> None:
        """The message says what to set."""
        from starlette.requests import HTTPConnection

        with pytest.raises(NotReadyError, match="set NOSUCH in the settings"):
            component("NOSUCH")(HTTPConnection({"type": "http", "app": create_app()}))


class TestRateLimit:
    """429 with Retry-After."""

    async def test_the_client_is_limited_by_its_address(self) -> None:
        """The third hit is one too many."""
        limiter = Limiter(2)
        app = create_app()

        @app.get("/", dependencies=[Depends(rate_limit(limiter))])
        async def endpoint() -> str:
            return "ok"

        web = AppClient(app)
        assert [(await web.get("/")).status_code for _ in range(3)] == [200, 200, 429]
        reply = await web.get("/")
        assert reply.headers["retry-after"] == "2"
        assert reply.error()["extra"] == {"retry_after": 1.2}
        assert limiter.hits[0] == ("127.0.0.1", 1)

    async def test_key_cost_code_and_late_limiter(self) -> None:
        """All of it can be chosen; a limiter may exist only after the start."""
        app = create_app()
        app.state.limiter = limiter = Limiter(2)
        limit = rate_limit(
            lambda request: request.app.state.limiter,
            key=lambda request: request.headers.get("x-user"),
            cost=2,
            code="slow_down",
        )

        @app.get("/", dependencies=[Depends(limit)])
        async def endpoint() -> str:
            return "ok"

        web = AppClient(app)
        assert (await web.get("/", headers={"x-user": "ann"})).data() == "ok"
        assert (await web.get("/", headers={"x-user": "ann"})).error()["code"] == "slow_down"
        assert (await web.get("/")).data() == "ok"
        assert limiter.hits == [("ann", 2), ("ann", 2), ("", 2)]


class TestStreams:
    """A reply that streams holds no connection."""

    async def test_the_client_is_back_before_the_stream_begins(self) -> None:
        """Else a few open event streams would keep all others waiting for the pool."""
        EVENTS.clear()
        app = create_app()
        app.state.components = {"REDIS_CONFIG": Manager()}
        seen: list[list[str]] = []

        async def stream() -> AsyncIterator[str]:
            seen.append(list(EVENTS))
            yield "x"

        @app.get("/")
        async def endpoint(redis: Redis) -> StreamingResponse:
            return StreamingResponse(stream())

        assert (await AppClient(app).get("/")).text == "x"
        assert seen == [["acquired cache True", "back"]]

    async def test_a_dependency_of_the_application_keeps_its_client(self) -> None:
        """A generator that lives as long as the reply has it until its own end."""
        EVENTS.clear()
        app = create_app()
        app.state.components = {"REDIS_CONFIG": Manager()}

        @app.get("/")
        async def endpoint(name: Annotated[str, Depends(repository)]) -> str:
            return name

        assert (await AppClient(app).get("/")).data() == "client of cache"
        assert EVENTS == ["acquired cache True", "end of the repository", "back"]


class TestSocketLimits:
    """Rate limits on handshakes."""

    async def test_a_handshake_beyond_the_limit_is_refused(self) -> None:
        """With the address of the client as key, as for requests."""
        app = create_app()
        limiter = Limiter(1)

        @app.websocket("/ws", dependencies=[Depends(rate_limit(limiter))])
        async def endpoint(ws: WebSocket) -> None:
            await ws.accept()
            await ws.close()

        async with AppClient(app) as client:
            async with client.websocket("/ws"):
                pass

            with pytest.raises(SocketClosed) as closed:
                async with client.websocket("/ws"):
                    pass

        assert closed.value.code == 429
        assert limiter.hits == [("127.0.0.1", 1)] * 2


@pytest.mark.parametrize("limiter", [None, "x", [], [None], 5])
def test_what_is_not_a_limiter(limiter: Any) -> None:
    """It is refused when the route is made, not at the first request."""
    with pytest.raises(UsageError, match="rate_limit takes objects with `hit"):
        rate_limit(limiter)


@pytest.mark.parametrize("cost", [0, -1, 1.5, True, "1"])
def test_what_is_not_a_cost(cost: Any) -> None:
    """As above: a cost of nothing would let everybody through."""
    with pytest.raises(UsageError, match="cost must be a positive whole number"):
        rate_limit(SimpleNamespace(hit=None), cost=cost)
