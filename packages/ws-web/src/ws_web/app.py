"""`create_app`: a FastAPI application with settings, components, envelope, request id and health."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ws_core.component import Component
from ws_core.errors import WsError
from ws_web._body_limit import BodyLimitMiddleware
from ws_web._components import prepare, running
from ws_web._importing import load
from ws_web.conf import Settings
from ws_web.conf import settings as current_settings
from ws_web.errors import SettingsError
from ws_web.exception_handlers import (
    err_response_handler,
    http_exception_handler,
    request_validation_exception_handler,
    server_error_handler,
)
from ws_web.health import HealthMonitor, add_health_routes
from ws_web.middlewares import ErrorBoundaryMiddleware, RequestIDMiddleware
from ws_web.request import APIRoute
from ws_web.response import ErrResponse

__all__ = ("create_app",)

Lifespan = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]]
# Any: FastAPI's own type of a lifespan; its state holds what the application puts there


def create_app(
    settings: Settings | None = None,
    *,
    lifespan: Lifespan | None = None,
    health: bool = True,
    **fastapi_kwargs: Any,  # Any: FastAPI's own arguments, passed on
) -> FastAPI:
    """
    Create the application that the settings describe.

    Everything that can be checked without side effects is checked here, so that a mistake stops
    the program before a server starts. The components whose sections are set are started in the
    lifespan, before yours, and closed in reverse. They are found in ``app.state.components``,
    by settings key; the settings in ``app.state.settings``.

    Args:
        settings: The settings; by default those of `ws_web.settings`, loaded now. Given ones
            become those of `ws_web.settings`.
        lifespan: Your own lifespan, run inside that of the components.
        health: Whether to serve ``/livez``, ``/readyz`` and ``/startupz``.
        **fastapi_kwargs: Arguments for `FastAPI`; they win over APP_CONFIG. ``max_body_size``, in
            bytes, refuses larger requests with 413.

    Returns:
        The application. Routes of the application itself and of `ws_web.APIRouter` reply in the
        envelope; routes of FastAPI's own `APIRouter` do not.

    Raises:
        SettingsError: A setting is wrong.
        MissingExtraError: A section is set whose library is not installed.
        ConfigError: A section is wrong.

    Example:
        ```python
        from ws_web import create_app
        from ws_web.testing import AppClient

        app = create_app(title="Shop")


        @app.get("/price/{item}")
        async def price(item: str) -> float:
            return 9.5


        async with AppClient(app) as client:
            reply = await client.get("/price/lamp")
            assert reply.json()["data"] == 9.5
            assert reply.json()["msg"] == "Success"
        ```
    """
    if settings is None:
        settings = current_settings.current
    else:
        current_settings.use(settings)

    options = {"debug": settings.DEBUG, **settings.APP_CONFIG, **fastapi_kwargs}
    hooks = _take_hooks(options)
    configured_lifespan = options.pop("lifespan", None)
    max_body_size = options.pop("max_body_size", None)
    middlewares = [_middleware(entry) for entry in settings.MIDDLEWARES]
    handlers = dict(_handler(entry) for entry in settings.EXCEPTION_HANDLERS)
    _check_cors([*middlewares, *options.get("middleware", ())])
    lifetime = _Lifetime(settings, lifespan or configured_lifespan, hooks)
    life: Any = lifetime  # Any: Starlette's type of a lifespan is narrower than what it takes

    try:
        app = _Application(lifespan=life, **options)
    except TypeError as error:
        message = f"APP_CONFIG does not fit FastAPI: {error}"
        raise SettingsError(message) from None

    app.limit_bodies(max_body_size)
    app.router.route_class = APIRoute
    app.state.settings = settings
    app.state.components = MappingProxyType(lifetime.components)
    app.state.trusted_proxies = settings.TRUSTED_PROXIES
    app.state.health = lifetime.monitor

    given = options.get("exception_handlers") or {}
    own: dict[Any, Any] = {  # Any: Starlette's own type is not public
        HTTPException: http_exception_handler,
        RequestValidationError: request_validation_exception_handler,
        ErrResponse: err_response_handler,
        Exception: server_error_handler,
    }

    for key, handler in {**own, **handlers, **given}.items():
        app.add_exception_handler(key, handler)

    for middleware in middlewares:
        app.user_middleware.insert(0, middleware)

    if health:
        add_health_routes(app, lifetime.monitor)

    return app


class _Lifetime:
    """The lifespan: components, then start-up functions, then the user's lifespan."""

    def __init__(self, settings: Settings, inner: Lifespan | None, hooks: _Hooks) -> None:
        self._settings = settings
        self._inner = inner
        self._hooks = hooks
        self._fresh = True
        self.monitor = HealthMonitor()
        self.components: dict[str, Component] = prepare(settings)

    @asynccontextmanager
    async def __call__(self, app: Any) -> AsyncIterator[Mapping[str, Any] | None]:  # Any: see Lifespan
        """Run the application's life once; each further life gets new components."""
        if not self._fresh:
            renewed = prepare(self._settings)
            self.components.clear()
            self.components.update(renewed)

        self._fresh = False
        components = list(self.components.values())

        async with AsyncExitStack() as stack:
            await stack.enter_async_context(running(components))
            stack.push_async_callback(_call_all, self._hooks.shutdown)
            await _call_all(self._hooks.startup)
            state = await stack.enter_async_context(self._inner(app)) if self._inner else None
            self.monitor.mark_started(components)
            stack.callback(self.monitor.mark_stopped)
            yield state


class _Hooks:
    """The functions of APP_CONFIG's ``on_startup`` and ``on_shutdown``."""

    def __init__(
        self, startup: Sequence[Callable[[], object]], shutdown: Sequence[Callable[[], object]]
    ) -> None:
        self.startup = startup
        self.shutdown = shutdown


def _take_hooks(options: dict[str, Any]) -> _Hooks:  # Any: FastAPI's arguments
    """Take ``on_startup`` and ``on_shutdown``, which FastAPI no longer runs, out of the options."""
    taken: list[list[Callable[[], object]]] = []

    for name in ("on_startup", "on_shutdown"):
        functions = options.pop(name, None) or []

        if not isinstance(functions, list | tuple):
            raise SettingsError(
                f"APP_CONFIG: {name} must be a list of functions, not {type(functions).__name__}"
            )

        taken.append([load(function, f"APP_CONFIG: {name}") for function in functions])

    return _Hooks(*taken)


async def _call_all(functions: Sequence[Callable[[], object]]) -> None:
    for function in functions:
        result = function()

        if inspect.isawaitable(result):
            await result


def _middleware(entry: object) -> Middleware:
    """Read one entry of MIDDLEWARES."""
    if isinstance(entry, Middleware):
        return entry

    options: Mapping[str, Any] = {}  # Any: the middleware's own
    named = entry

    if isinstance(entry, Mapping):
        if "cls" not in entry or set(entry) - {"cls", "options"}:
            message = 'MIDDLEWARES: an entry is {"cls": ..., "options": {...}}, not ' + repr(entry)
            raise SettingsError(message)

        named, options = entry["cls"], entry.get("options") or {}

    cls = load(named, "MIDDLEWARES")

    try:
        inspect.signature(cls).bind(None, **options)
    except TypeError as error:
        name = getattr(cls, "__name__", repr(cls))
        raise SettingsError(f"MIDDLEWARES: {name} does not take these options: {error}") from None

    return Middleware(cls, **options)


def _handler(entry: object) -> tuple[Any, Any]:  # Any: Starlette's own types are not public
    """Read one entry of EXCEPTION_HANDLERS."""
    if not isinstance(entry, Mapping) or set(entry) != {"cls", "handler"}:
        message = 'EXCEPTION_HANDLERS: an entry is {"cls": ..., "handler": ...}, not ' + repr(entry)
        raise SettingsError(message)

    cls = entry["cls"]
    key = cls if isinstance(cls, int) else load(cls, "EXCEPTION_HANDLERS")
    return key, load(entry["handler"], "EXCEPTION_HANDLERS")


def _check_cors(middlewares: Sequence[Middleware]) -> None:
    """Refuse to let every site act with the credentials of our users."""
    for middleware in middlewares:
        if not _is_a(middleware, CORSMiddleware):
            continue

        options: Mapping[str, Any] = middleware.kwargs  # Any: the middleware's own

        if "*" in options.get("allow_origins", ()) and options.get("allow_credentials"):
            message = (
                "CORS with allow_origins=['*'] and allow_credentials=True lets every site act as your users: "
                "list the origins, or leave credentials out"
            )
            raise SettingsError(message)


class _Application(FastAPI):
    """FastAPI with our middlewares at their places, and start-up errors in one line."""

    _body_limit: Sequence[Middleware] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await super().__call__(scope, receive, send)
            return

        async def send_clearly(message: Message) -> None:
            # Starlette sends the failure while it handles the exception, with the traceback as text.
            error = sys.exception()

            if message["type"].endswith(".failed") and isinstance(error, WsError):
                message = {**message, "message": str(error)}

            await send(message)

        await super().__call__(scope, receive, send_clearly)

    def limit_bodies(self, max_bytes: Any) -> None:  # Any: checked here
        """Refuse larger bodies in the envelope; FastAPI's own limit would answer in plain text."""
        if max_bytes is None:
            return

        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 0:
            message = f"APP_CONFIG: max_body_size must be a number of bytes, not {max_bytes!r}"
            raise SettingsError(message)

        self._body_limit = (Middleware(BodyLimitMiddleware, max_bytes=max_bytes),)

    def build_middleware_stack(self) -> ASGIApp:
        """Put the request id outermost, then CORS, then the error boundary, then all others."""
        chosen = self.user_middleware
        self.user_middleware = self._arrange(chosen)

        try:
            return super().build_middleware_stack()
        finally:
            self.user_middleware = chosen

    def _arrange(self, chosen: Sequence[Middleware]) -> list[Middleware]:
        ids = [m for m in chosen if _is_a(m, RequestIDMiddleware)] or [Middleware(RequestIDMiddleware)]
        cors = [m for m in chosen if _is_a(m, CORSMiddleware)]
        others = [m for m in chosen if m not in ids and m not in cors]
        boundary = Middleware(ErrorBoundaryMiddleware, handler=self._answer_error)
        return [ids[0], *cors, boundary, *self._body_limit, *others]

    def _answer_error(self, request: Request, error: Exception) -> Any:  # Any: a reply or its awaitable
        handler = self.exception_handlers.get(500) or self.exception_handlers[Exception]
        return handler(request, error)


def _is_a(middleware: Middleware, cls: type) -> bool:
    return isinstance(middleware.cls, type) and issubclass(middleware.cls, cls)
