"""Dependencies for routes: components, their clients, and a rate limit."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from starlette.requests import HTTPConnection

from ws_core.component import Component
from ws_core.errors import NotReadyError, UsageError
from ws_web._components import manager_of
from ws_web.request import Request, client_ip_of
from ws_web.response import ErrResponse

__all__ = ("Limiter", "Verdict", "client", "component", "rate_limit")

# Any below: components and their clients are of any type.


class Verdict(Protocol):
    """What a limiter says of a hit; those of ws-redislock fit."""

    @property
    def allowed(self) -> bool:
        """Whether the hit is within the limit."""
        ...

    @property
    def retry_after(self) -> float:
        """Seconds after which a hit would be allowed."""
        ...


class Limiter(Protocol):
    """What a rate limit needs; the limiters of ws-redislock fit."""

    def hit(self, key: str, cost: int = 1, /) -> Awaitable[Verdict]:
        """Count a hit if it is within the limit."""
        ...


def component(section: str) -> Callable[[HTTPConnection], Any]:
    """
    Return a dependency: the component of a settings section.

    Args:
        section: The settings key, such as ``"REDIS_CONFIG"``.

    Returns:
        A function for `fastapi.Depends`; it raises `NotReadyError` when the section is not set.

    Example:
        ```python
        from typing import Annotated

        from fastapi import Depends
        from ws_core import Health

        from ws_web import Settings, create_app
        from ws_web.dependencies import component
        from ws_web.testing import AppClient

        app = create_app(Settings())
        Redis = Annotated[object, Depends(component("REDIS_CONFIG"))]


        @app.get("/redis")
        async def redis(redis: Redis) -> str:
            return type(redis).__name__


        async with AppClient(app) as client:
            reply = await client.get("/redis")  # the section is not set: a bug of the application
            assert reply.error()["code"] == 500
        ```
    """

    def find(connection: HTTPConnection) -> Any:
        return _component(connection, section)

    return find


def client(
    section: str, name: str = "default", *, alone: bool = False
) -> Callable[[HTTPConnection], AsyncIterator[Any]]:
    """
    Return a dependency: a client of a named pool, until the route's function has returned.

    The client is released before the reply is sent, so that a slow download or an event stream holds no
    connection. What streams needs a client of its own.

    Args:
        section: The settings key, such as ``"DATABASES"``.
        name: The pool's name in that section.
        alone: Whether to force a client of its own, see the pool.

    Returns:
        A function for `fastapi.Depends`.
    """

    async def acquire(connection: HTTPConnection) -> AsyncIterator[Any]:
        manager = manager_of(_component(connection, section))
        acquired: AbstractAsyncContextManager[Any] = manager.get_client(name, alone=alone)

        async with acquired as one:
            yield one

    acquire.__ws_web_function_scope__ = True  # type: ignore[attr-defined]  # see _envelope
    return acquire


def rate_limit(
    limiter: Limiter | Callable[[Any], Limiter] | Sequence[Limiter | Callable[[Any], Limiter]],
    *,
    key: Callable[[Any], str | None] = client_ip_of,
    cost: int = 1,
    code: int | str = 429,
) -> Callable[[HTTPConnection], Awaitable[None]]:
    """
    Return a dependency that refuses a request beyond a limit with 429 and ``Retry-After``.

    Args:
        limiter: Anything with ``hit(key, cost)``, or a function that returns it for the request,
            when it exists only once the application has started. Of several all must allow the request: list
            the shortest window first, since what it refuses does not count in the longer ones.
        key: What is limited; by default the client's address. Requests without a key are one.
        cost: How much one request counts.
        code: The code in the envelope.

    Returns:
        A function for `fastapi.Depends`.

    Raises:
        UsageError: There is no limiter, or the cost is not a positive whole number.

    Example:
        ```python
        from types import SimpleNamespace

        from fastapi import Depends

        from ws_web import create_app
        from ws_web.dependencies import rate_limit
        from ws_web.testing import AppClient


        class Once:
            def __init__(self):
                self.seen = set()

            async def hit(self, key, cost=1):
                allowed = key not in self.seen
                self.seen.add(key)
                return SimpleNamespace(allowed=allowed, retry_after=2.5)


        app = create_app()


        @app.get("/buy", dependencies=[Depends(rate_limit(Once()))])
        async def buy() -> str:
            return "bought"


        async with AppClient(app) as client:
            assert (await client.get("/buy")).data() == "bought"
            reply = await client.get("/buy")
            assert reply.status_code == 429 and reply.headers["retry-after"] == "3"
        ```
    """
    several = isinstance(limiter, Sequence) and not isinstance(limiter, str)
    limiters: list[Any] = [*limiter] if several else [limiter]  # type: ignore[misc]  # a sequence

    if not limiters or not all(callable(one) or hasattr(one, "hit") for one in limiters):
        raise UsageError(f"rate_limit takes objects with `hit(key, cost)`, or functions, not {limiter!r}")

    if type(cost) is not int or cost < 1:
        raise UsageError(f"rate_limit: cost must be a positive whole number, not {cost!r}")

    async def limit(connection: HTTPConnection) -> None:
        # A handshake is no request of ours: functions of the user get the WebSocket's connection.
        caller = Request(connection.scope) if connection.scope["type"] == "http" else connection
        limited = key(caller) or ""

        for one in limiters:
            chosen: Limiter = one if hasattr(one, "hit") else one(caller)
            verdict = await chosen.hit(limited, cost)

            if verdict.allowed:
                continue

            seconds = max(1, math.ceil(verdict.retry_after))
            raise ErrResponse(
                code=code,
                status_code=429,
                msg="Too Many Requests",
                extra={"retry_after": verdict.retry_after},
                headers={"Retry-After": str(seconds)},
            )

    return limit


def _component(connection: HTTPConnection, section: str) -> Component:
    state = getattr(connection.scope.get("app"), "state", None)
    found: Component | None = getattr(state, "components", {}).get(section)

    if found is None:
        message = f"there is no component for {section}: set {section} in the settings"
        raise NotReadyError(message, section=section)

    return found
