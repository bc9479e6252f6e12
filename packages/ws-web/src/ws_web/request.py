"""The request with the properties that handlers ask for, and the routes that hand it out."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum
from json import JSONDecodeError
from typing import Any, overload

import fastapi
from fastapi.datastructures import Default, DefaultPlaceholder
from fastapi.exceptions import HTTPException
from fastapi.routing import APIRoute as FastAPIRoute
from fastapi.routing import _effective_route_context_var
from starlette.requests import HTTPConnection
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response as StarletteResponse

from ws_core.redaction import mask, mask_text
from ws_web._client_ip import client_ip, networks
from ws_web._declarations import DEADLINE, DeclaringRoutes, Handler, declared_here, limited, within
from ws_web._envelope import Endpoint, data_model, enveloped, release_early
from ws_web._json import MAX_DEPTH, is_too_deep
from ws_web._route_template import route_template

__all__ = ("APIRoute", "APIRouter", "Request")


class _NotJson(HTTPException, JSONDecodeError):
    """A body that is not JSON: a refusal to the client, unless its handler has it as Starlette's error."""

    def __init__(self, error: JSONDecodeError) -> None:
        JSONDecodeError.__init__(self, error.msg, error.doc, error.pos)
        HTTPException.__init__(self, 400, f"The body is not JSON: {error}")


class _Unreadable(HTTPException, ValueError):
    """A body that cannot be read as JSON."""


class Request(fastapi.Request):
    """
    The request as routes of `APIRouter` receive it. Declare a parameter of this type.

    Example:
        ```python
        from ws_web import Request, create_app
        from ws_web.testing import AppClient

        app = create_app()


        @app.get("/whoami")
        async def whoami(request: Request) -> dict[str, str | None]:
            return {"ip": request.client_ip, "id": request.request_id}


        async with AppClient(app) as client:
            reply = await client.get("/whoami", headers={"x-request-id": "r-1"})
            assert reply.data() == {"ip": "127.0.0.1", "id": "r-1"}
        ```
    """

    async def json(self) -> Any:  # Any: any JSON value
        """
        Return the body as JSON.

        Raises:
            HTTPException: 400, for a body that is not JSON, or is nested too deeply to be worked with. The
                former is a ValueError too, a `json.JSONDecodeError` as a rule, as in Starlette.
        """
        if is_too_deep(await self.body()):
            raise HTTPException(400, f"the JSON is nested deeper than {MAX_DEPTH} levels")

        try:
            return await super().json()
        except JSONDecodeError as error:
            raise _NotJson(error) from None
        except ValueError as error:  # not UTF-8, or a number that is too long
            raise _Unreadable(400, "There was an error parsing the body") from error

    @property
    def request_id(self) -> str:
        """The id of this request; empty when `RequestIDMiddleware` is not installed."""
        request_id: str = self.scope.get("ws_web.request_id", "")
        return request_id

    @property
    def client_host(self) -> str | None:
        """The address of the other end of the connection: a proxy, if there is one."""
        return self.client.host if self.client else None

    @property
    def client_ip(self) -> str | None:
        """The client's address; ``X-Forwarded-For`` counts only from TRUSTED_PROXIES."""
        return client_ip_of(self)

    @property
    def x_forwarded_for(self) -> str:
        """The first entry of ``X-Forwarded-For`` as sent, which anyone can forge: see `client_ip`."""
        return self.headers.get("x-forwarded-for", "").partition(",")[0].strip()

    @property
    def referer(self) -> str | None:
        """The ``Referer`` header."""
        return self.headers.get("referer")

    @property
    def content_type(self) -> str | None:
        """The ``Content-Type`` header."""
        return self.headers.get("content-type")

    @property
    def content_length(self) -> int:
        """The ``Content-Length`` header in bytes; 0 when it is missing or no number."""
        sent = self.headers.get("content-length", "")
        return int(sent) if sent.isascii() and sent.isdigit() else 0

    @property
    def route(self) -> FastAPIRoute | None:
        """The route that answers."""
        return self.scope.get("route")

    @property
    def path(self) -> str:
        """The route's template, such as ``/items/{item_id}``, without the value of a parameter."""
        return route_template(self.scope) or self.scope["path"]

    @property
    def tags(self) -> list[str | Enum]:
        """The route's tags."""
        return list(getattr(self.route, "tags", ()))

    @property
    def debug_info(self) -> dict[str, object]:
        """What a log line about a strange request needs, without credentials."""
        names = ("type", "http_version", "server", "client", "scheme", "method", "root_path", "path")
        shown = {name: self.scope.get(name) for name in names}
        headers = [(name, mask(name, value)) for name, value in self.headers.items()]
        query = mask_text(self.scope.get("query_string", b"").decode("latin-1"))
        return {"request_id": self.request_id, **shown, "query_string": query, "headers": headers}

    @overload
    def get_header(self, name: str) -> str | None: ...
    @overload
    def get_header(self, name: str, default: str) -> str: ...
    def get_header(self, name: str, default: str | None = None) -> str | None:
        """
        Return a header.

        Args:
            name: The header's name, in any case.
            default: What to return when it was not sent.
        """
        return self.headers.get(name, default)


def client_ip_of(connection: HTTPConnection) -> str | None:
    """Return the client's address of a request or a WebSocket, see `Request.client_ip`."""
    state = getattr(connection.scope.get("app"), "state", None)
    cidrs: tuple[str, ...] = getattr(state, "trusted_proxies", ())
    peer = connection.client.host if connection.client else None
    return client_ip(peer, connection.headers.getlist("x-forwarded-for"), networks(cidrs))


class APIRoute(FastAPIRoute):
    """
    A route whose results are put into the envelope.

    FastAPI validates and serialises the data as it does without us, and the envelope is put around the
    bytes; so ``response_model_exclude`` and its sisters act on the data and never on the envelope. OpenAPI
    describes ``Envelope[T]`` for the declared type ``T``. Streams, files, redirects, other response classes
    than JSON and statuses without a body are left alone; a `ws_web.Response` is sent as it is, and so
    is an `Envelope` that the endpoint declares and builds itself.

    Override `prepare` in a subclass to look at each request before its dependencies are solved.
    """

    def __init__(
        self,
        path: str,
        endpoint: Endpoint,
        *,
        response_model: Any = Default(None),  # Any: as in FastAPI  # noqa: B008 - a constant
        **options: Any,  # Any: passed on
    ) -> None:
        if isinstance(response_model, DefaultPlaceholder):
            response_model = data_model(endpoint)

        self._limits = declared_here()
        super().__init__(path, endpoint, response_model=response_model, **options)

    async def prepare(self, request: Request) -> None:
        """
        Look at a request before anything else is done; raise to refuse it. Does nothing here.

        Args:
            request: The request; its body has not been read.
        """

    def get_route_handler(self) -> Callable[[StarletteRequest], Coroutine[Any, Any, StarletteResponse]]:
        """Return FastAPI's handler, called with our `Request` after `prepare`."""
        # FastAPI builds one handler for the route itself, and one for each inclusion of its router.
        context = _effective_route_context_var.get()
        route = context if context is not None and context.original_route is self else self

        release_early(route.dependant)

        with enveloped(route):
            handle = super().get_route_handler()

        prepare = None if type(self).prepare is APIRoute.prepare else self.prepare
        has_own_deadline = self._limits.deadline is not ... or self._limits.cancel_on_disconnect

        async def handle_prepared(request: StarletteRequest) -> StarletteResponse:
            if prepare is not None:
                ours = request if isinstance(request, Request) else Request(request.scope, request.receive)
                await prepare(ours)

            return await handle(request)

        inner = handle if prepare is None else handle_prepared
        whole = limited(inner, self._limits) or inner

        async def handle_in_time(request: StarletteRequest) -> StarletteResponse:
            return await within(request.scope[DEADLINE], inner, request)

        in_time: Handler = whole if has_own_deadline else handle_in_time

        for wrap in _all_around(route.dependant):
            whole, in_time = functools.partial(wrap, whole), functools.partial(wrap, in_time)

        async def handle_ours(request: StarletteRequest) -> StarletteResponse:
            # A subclass of APIRoute may have made a request of a class of its own, whose body() it needs.
            # Ours only adds methods: to change the class is cheaper than to make another object.
            if type(request) is StarletteRequest:
                request.__class__ = Request

            return await (in_time if DEADLINE in request.scope else whole)(request)

        return handle_ours


def _all_around(dependant: Any) -> list[Callable[[Handler, StarletteRequest], Awaitable[StarletteResponse]]]:
    """Return what the dependencies of a route do around its handler, the outermost last."""
    found = []

    for dependency in dependant.dependencies:
        found += _all_around(dependency)

        if (around := getattr(dependency.call, "__ws_web_around__", None)) is not None:
            found.append(around)

    return found[::-1]


class APIRouter(DeclaringRoutes, fastapi.APIRouter):
    """
    FastAPI's router whose routes are `APIRoute`: results come in the envelope.

    Its methods take, beside FastAPI's options: ``errors``, `ErrorCode` members and HTTP statuses that OpenAPI
    lists; ``deadline``, seconds in which the reply must be ready, else 504; ``cancel_on_disconnect``, whether
    the handler is cancelled when its client has gone (it runs to its end by default: writes must finish).

    Example:
        ```python
        from ws_web import APIRouter, create_app
        from ws_web.testing import AppClient

        router = APIRouter(prefix="/shop")


        @router.get("/items")
        async def items() -> list[str]:
            return ["lamp"]


        app = create_app()
        app.include_router(router)

        async with AppClient(app) as client:
            reply = await client.get("/shop/items")
            assert reply.data() == ["lamp"]
        ```
    """

    def __init__(self, *, route_class: type[FastAPIRoute] = APIRoute, **options: Any) -> None:
        # Any: FastAPI's own options, passed on
        super().__init__(route_class=route_class, **options)
