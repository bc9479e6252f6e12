"""`create_app`: a FastAPI application with settings, components, envelope, request id and health."""

from __future__ import annotations

import inspect
import logging
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.routing import APIRouter
from starlette._utils import is_async_callable
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ws_core.component import Component
from ws_core.errors import WsError
from ws_web._body_limit import DEFAULT_MAX_BODY_SIZE, BodyLimit
from ws_web._components import prepare, running
from ws_web._declarations import DEADLINE, DeclaringRoutes, check_deadline
from ws_web._error_boundary import ErrorBoundaryMiddleware, is_news
from ws_web._frozen import thawed
from ws_web._importing import load
from ws_web._observability import Observability
from ws_web._observation import Observation, ObservationMiddleware
from ws_web._origin import Origins
from ws_web.conf import SETTINGS_OF_APPLICATION, Settings
from ws_web.conf import settings as current_settings
from ws_web.errors import SettingsError, SocketLimitError
from ws_web.exception_handlers import (
    err_response_handler,
    http_exception_handler,
    request_validation_exception_handler,
    server_error_handler,
    socket_limit_handler,
    websocket_validation_exception_handler,
)
from ws_web.health import HealthMonitor, add_health_routes
from ws_web.middlewares import RequestIDMiddleware
from ws_web.request import APIRoute
from ws_web.response import ErrResponse

__all__ = ("Application", "create_app")

Lifespan = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]]
# Any: FastAPI's own type of a lifespan; its state holds what the application puts there


def create_app(
    settings: Settings | None = None,
    *,
    lifespan: Lifespan | None = None,
    health: bool = True,
    deadline: float | None = None,
    **fastapi_kwargs: Any,  # Any: FastAPI's own arguments, passed on
) -> Application:
    """
    Create the application that the settings describe.

    Everything that can be checked without side effects is checked here, so that a mistake stops
    the program before a server starts. The components whose sections are set are started in the
    lifespan, before yours, and closed in reverse. They are found in ``app.state.components``,
    by settings key; the settings in ``app.state.settings``.

    Args:
        settings: The settings; by default those of `ws_web.settings`, loaded now. Given ones are those
            of `ws_web.settings` in the requests of this application; of the first application, elsewhere too.
        lifespan: Your own lifespan, run inside that of the components.
        health: Whether to serve ``/livez``, ``/readyz`` and ``/startupz``.
        deadline: Seconds in which the reply of a route must be ready, unless the route declares others; then
            the handler is cancelled, and the client gets 504. None for no limit.
        **fastapi_kwargs: Arguments for `FastAPI`; they win over APP_CONFIG. ``max_body_size``, in
            bytes, refuses larger requests with 413: 16 MiB by default, None for no limit; routers and routes
            may set their own.

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
        current_settings.offer(settings)

    check_deadline(deadline)
    options = {"debug": settings.DEBUG, **thawed(settings.APP_CONFIG), **fastapi_kwargs}
    _load_hooks(options)
    configured = options.pop("lifespan", None)
    own: Any = lifespan or configured  # Any: Starlette's type of a lifespan is narrower than what it takes
    is_own = options.get("max_body_size") is not None
    max_body_size = _body_size(options.pop("max_body_size", DEFAULT_MAX_BODY_SIZE))
    middlewares = [_middleware(entry) for entry in settings.MIDDLEWARES]
    handlers = dict(_handler(entry) for entry in settings.EXCEPTION_HANDLERS)
    _check_cors([*middlewares, *options.get("middleware", ())])
    lifetime = _Lifetime(settings)

    try:
        app = Application(lifespan=own, **options)
    except TypeError as error:
        message = f"APP_CONFIG does not fit FastAPI: {error}"
        raise SettingsError(message) from None

    lifetime.wrap(app.router, has_own=own is not None)
    app.body_limit = BodyLimit(max_body_size, is_own=is_own)
    app.settings = settings
    app.observation = lifetime.observability.observation
    app.server_spans = lifetime.observability.server_spans()
    app.router.route_class = APIRoute
    app.deadline = deadline
    app.state.settings = settings
    app.state.components = MappingProxyType(lifetime.components)
    app.state.trusted_proxies = settings.TRUSTED_PROXIES
    app.state.health = lifetime.monitor

    given = options.get("exception_handlers") or {}
    ours: dict[Any, Any] = {  # Any: Starlette's own type is not public
        HTTPException: http_exception_handler,
        RequestValidationError: request_validation_exception_handler,
        WebSocketRequestValidationError: websocket_validation_exception_handler,
        ErrResponse: err_response_handler,
        SocketLimitError: socket_limit_handler,
        Exception: server_error_handler,
    }

    for key, handler in {**ours, **handlers, **given}.items():
        app.add_exception_handler(key, handler)

    for middleware in middlewares:
        app.user_middleware.insert(0, middleware)

    if health:
        add_health_routes(app, lifetime.monitor)

    lifetime.observability.add_routes(app)
    return app


class _Lifetime:
    """The lifespan: components, then whatever FastAPI and its users have put into theirs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fresh = True
        self.monitor = HealthMonitor()
        self.components: dict[str, Component] = prepare(settings)
        self.observability = Observability(settings, self.components)

    def wrap(self, router: APIRouter, *, has_own: bool) -> None:
        """Put the components around the lifespan of a router, which FastAPI has built."""
        inner = router.lifespan_context

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[Mapping[str, Any] | None]:  # Any: the application's
            async with self._started_components() as components, AsyncExitStack() as stack:
                await stack.enter_async_context(self.observability.running())

                # FastAPI drops the functions of `on_event` when there is a lifespan; here both run.
                if has_own:
                    stack.push_async_callback(_call_all, router.on_shutdown)
                    await _call_all(router.on_startup)

                state = await stack.enter_async_context(inner(app))
                self.monitor.mark_started(components)
                stack.callback(self.monitor.mark_stopped)
                yield state

        router.lifespan_context = lifespan  # type: ignore[assignment]  # Starlette's type is narrower than what it takes

    @asynccontextmanager
    async def _started_components(self) -> AsyncIterator[list[Component]]:
        """Start the components and close them; each further life of the application gets new ones."""
        if not self._fresh:
            renewed = prepare(self._settings)
            self.components.clear()
            self.components.update(renewed)

        self._fresh = False
        logging.getLogger("uvicorn.error").addFilter(is_news)  # the boundary has logged, with id and route
        components = list(self.components.values())

        async with running(components):
            yield components


def _load_hooks(options: dict[str, Any]) -> None:  # Any: FastAPI's arguments
    """Replace the names of functions in ``on_startup`` and ``on_shutdown`` by the functions."""
    for name in ("on_startup", "on_shutdown"):
        functions = options.get(name) or []

        if not isinstance(functions, list | tuple):
            raise SettingsError(
                f"APP_CONFIG: {name} must be a list of functions, not {type(functions).__name__}"
            )

        options[name] = [load(function, f"APP_CONFIG: {name}") for function in functions]


async def _call_all(functions: Sequence[Callable[[], object]]) -> None:
    """Call each function, and await what it returns if it is to be awaited."""
    for function in functions:
        result = function()

        if inspect.isawaitable(result):
            await result


class _LimitError(SettingsError, ValueError):
    """FastAPI raises a ValueError for a wrong limit."""


def _body_size(max_bytes: object) -> int | None:
    """Check the limit of request bodies."""
    if max_bytes is None:
        return None

    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 0:
        message = f"max_body_size must be a number of bytes (a non-negative integer), not {max_bytes!r}"
        raise _LimitError(message)

    return max_bytes


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
    """Refuse to let foreign sites act with the credentials of our users."""
    for middleware in middlewares:
        if not _is_a(middleware, CORSMiddleware):
            continue

        given = zip(_CORS_OPTIONS, middleware.args, strict=False)
        options: Mapping[str, Any] = {**dict(given), **middleware.kwargs}  # Any: the middleware's own
        pattern = options.get("allow_origin_regex")
        # Any page can have the origin null, from a frame of its own that is sandboxed.
        open_to = [name for name in ("*", "null") if name in options.get("allow_origins", ())]
        named = f"allow_origins={open_to!r}"

        if pattern is not None and any(re.fullmatch(pattern, site) for site in _FOREIGN_SITES):
            named = f"allow_origin_regex={pattern!r}"
        elif not open_to:
            continue

        if options.get("allow_credentials"):
            message = (
                f"CORS with {named} and allow_credentials=True lets every site act as your users: "
                "list the origins, or leave credentials out"
            )
            raise SettingsError(message)


_CORS_OPTIONS = tuple(inspect.signature(CORSMiddleware).parameters)[1:]

# No application means these; a pattern that fits one of them fits sites of anybody.
_FOREIGN_SITES = (
    "https://evil.invalid", "http://a.b.c.invalid:1", "https://xn--0.invalid", "null",
    *(f"https://{name}.{top}" for name in ("xq7evil", "www.xq7evil") for top in ("com", "org", "net", "cn")),
)  # fmt: skip


class Application(DeclaringRoutes, FastAPI):
    """FastAPI with our middlewares at their places; its routes take the options of `ws_web.APIRouter`'s."""

    deadline: float | None = None

    body_limit: BodyLimit
    settings: Settings
    observation: Observation
    server_spans: Sequence[Middleware] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection with this application's settings in use."""
        token = SETTINGS_OF_APPLICATION.set(self.settings)

        if self.deadline is not None:
            scope[DEADLINE] = self.deadline

        try:
            await super().__call__(
                scope, receive, send if scope["type"] != "lifespan" else self._saying_clearly(send)
            )
        finally:
            SETTINGS_OF_APPLICATION.reset(token)

    def _saying_clearly(self, send: Send) -> Send:
        """Return a `send` that says in one line why a lifespan has failed."""

        async def send_clearly(message: Message) -> None:
            # Starlette sends the failure while it handles the exception, with the traceback as text.
            error = sys.exception()

            if message["type"].endswith(".failed") and isinstance(error, WsError):
                message = {**message, "message": str(error)}

            await send(message)

        return send_clearly

    def add_middleware(
        self, middleware_class: Any, *args: Any, **options: Any
    ) -> None:  # Any: Starlette's own
        """Add a middleware, having refused what would be dangerous."""
        _check_cors([Middleware(middleware_class, *args, **options)])
        super().add_middleware(middleware_class, *args, **options)

    def build_middleware_stack(self) -> ASGIApp:
        """Put the request id outermost, then CORS, then the error boundary, then all others."""
        chosen, handlers, debug = self.user_middleware, self.exception_handlers, self.debug

        for inner in _mounted(self):
            _check_cors(inner.user_middleware)

        self.user_middleware: list[Middleware] = self._arrange(chosen)
        # The boundary answers failures; Starlette's outermost handler, which has no reply to give any more,
        # must not call the application's handler a second time.
        self.exception_handlers: dict[Any, Any] = {
            k: v for k, v in handlers.items() if k not in (500, Exception)
        }
        self.debug: bool = False

        try:
            return super().build_middleware_stack()
        finally:
            self.user_middleware, self.exception_handlers, self.debug = chosen, handlers, debug

    def _arrange(self, chosen: Sequence[Middleware]) -> list[Middleware]:
        ids = [m for m in chosen if _is_a(m, RequestIDMiddleware)]
        cors = [m for m in chosen if _is_a(m, CORSMiddleware)]
        others = [m for m in chosen if m not in ids and m not in cors]
        monitor = self.state.health
        boundary = Middleware(
            ErrorBoundaryMiddleware,
            handler=self._answer_error,
            is_draining=lambda: monitor.draining,
            limit=self.body_limit,
            origins=Origins(self.settings.ALLOWED_ORIGINS),
        )
        headers = self.settings.SECURITY_HEADERS
        observed = Middleware(ObservationMiddleware, observation=self.observation, headers=headers)
        return [*self.server_spans, *ids[:1], observed, *cors, boundary, *others]

    async def _answer_error(self, connection: HTTPConnection, error: Exception) -> Any:  # Any: a reply
        """Return the reply for what nobody inside has answered."""
        handlers: Mapping[Any, Any] = self.exception_handlers  # Any: Starlette's own type is not public
        handler = handlers.get(500) or handlers[Exception]

        if isinstance(error, HTTPException):  # of a middleware
            classes = (cls for cls in type(error).__mro__ if cls in handlers)
            handler = handlers.get(error.status_code) or handlers[next(classes)]

        if is_async_callable(handler):
            return await handler(connection, error)

        return await run_in_threadpool(handler, connection, error)


def _mounted(app: Starlette) -> Iterator[Starlette]:
    """Yield an application and those that are mounted in it."""
    yield app

    for route in getattr(app.router, "routes", ()):  # somebody may have put another application there
        if isinstance(route, Mount) and isinstance(route.app, Starlette):
            yield from _mounted(route.app)


def _is_a(middleware: Middleware, cls: type) -> bool:
    return isinstance(middleware.cls, type) and issubclass(middleware.cls, cls)
