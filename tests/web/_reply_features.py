"""Features of FastAPI that concern replies, routes and applications; not a test module."""
# No `from __future__ import annotations`: FastAPI reads those of functions that stand within functions.

import gzip
import json
from collections.abc import AsyncIterable, Iterable
from pathlib import Path as Folder
from typing import Annotated, Any

import fastapi
from fastapi import (
    Body,
    Depends,
    Header,
    HTTPException,
    Query,
    Request,
    Response,
    WebSocket,
)
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from pydantic import HttpUrl

from tests.web._features import Ask, Item, Kit, Made, PublicUser, User, WholeUser, get, post

# Any below: endpoints return what they like.


def response_headers(kit: Kit) -> Made:
    """Headers by a parameter, and by a reply of the user's own."""
    app = kit.app()

    @app.get("/by-parameter/")
    async def by_parameter(response: Response) -> dict[str, str]:
        response.headers["X-Cat-Dog"] = "alone in the world"
        return {"message": "Hello World"}

    @app.get("/by-reply/")
    async def by_reply() -> JSONResponse:
        return JSONResponse(
            {"message": "Hello World"}, headers={"X-Cat-Dog": "alone", "Content-Language": "en"}
        )

    return app, [get("/by-parameter/"), get("/by-reply/")]


def additional_status_codes(kit: Kit) -> Made:
    """A status of its own for what is created."""
    app = kit.app()

    @app.put("/items/{item_id}", response_model=None)
    async def upsert(item_id: str, name: Annotated[str | None, Body()] = None) -> Any:
        return {"name": name} if item_id == "known" else JSONResponse({"name": name}, status_code=201)

    @app.put("/made/{item_id}", status_code=202)
    async def made(item_id: str, response: Response) -> dict[str, str]:
        response.status_code = 201 if item_id == "new" else 200
        return {"id": item_id}

    return app, [
        ("PUT", path, {"json": "lamp"}) for path in ("/items/known", "/items/x", "/made/new", "/made/old")
    ]


def error_in_words_of_its_own(kit: Kit) -> Made:
    """A refusal in plain text, with headers of a middleware."""
    app = kit.app()

    @app.get("/large/{status}")
    async def large(status: int) -> PlainTextResponse:
        return PlainTextResponse("at most 5 MB", status, headers={"X-Most": "5"})

    @app.middleware("http")
    async def mark(request: Request, call_next: Any) -> Response:
        reply: Response = await call_next(request)
        reply.headers["X-Mark"] = "1"
        return reply

    return app, [get(f"/large/{status}") for status in (400, 404, 413, 500)]


def response_class_with_a_prefix(kit: Kit) -> Made:
    """A class that begins its replies with what keeps other sites from reading them is not JSON."""
    app = kit.app()

    class Guarded(JSONResponse):
        def render(self, content: Any) -> bytes:
            return b")]}',\n" + super().render(content)

    class Indented(JSONResponse):
        def render(self, content: Any) -> bytes:
            return json.dumps(content, indent=1).encode()

    @app.get("/guarded", response_class=Guarded)
    async def guarded() -> dict[str, int]:
        return {"a": 1}

    @app.get("/indented", response_class=Indented)
    async def indented() -> dict[str, int]:
        return {"a": 1}

    return app, [get("/guarded"), get("/indented")]


def response_cookies(kit: Kit) -> Made:
    """Cookies by a parameter, and by a reply of the user's own."""
    app = kit.app()

    @app.post("/cookie-and-object/")
    def cookie(response: Response) -> dict[str, str]:
        response.set_cookie(key="fakesession", value="fake-cookie-session-value", httponly=True)
        return {"message": "Come to the dark side, we have cookies"}

    @app.post("/cookie/")
    def reply() -> Response:
        made = JSONResponse({"message": "cookies"})
        made.set_cookie(key="fakesession", value="value", max_age=60)
        return made

    return app, [("POST", "/cookie-and-object/", {}), ("POST", "/cookie/", {})]


def response_model(kit: Kit) -> Made:
    """What is sent is what is declared, and no more."""
    app = kit.app()

    @app.post("/user/", response_model=PublicUser)
    async def create(user: User) -> Any:
        return user

    @app.get("/item/", response_model=Item, response_model_exclude_unset=True)
    async def unset() -> Any:
        return {"name": "lamp", "price": 1}

    @app.get("/part/", response_model=Item, response_model_include={"name", "tax"})
    async def part() -> Any:
        return Item(name="lamp", price=1)

    @app.get("/rest/", response_model=User, response_model_exclude={"password"})
    async def rest() -> Any:
        return {"username": "ann", "password": "x"}

    @app.get("/base/")
    async def subclass() -> PublicUser:
        return WholeUser(username="ann", password="x")

    asks = [get(path) for path in ("/item/", "/part/", "/rest/", "/base/")]
    return app, [post("/user/", {"username": "ann", "password": "x"}), *asks]


class Unicorn(Exception):
    """An exception of the user's own."""


def handling_errors(kit: Kit) -> Made:
    """Errors with headers and data, and handlers for the user's own and for FastAPI's."""
    app = kit.app()

    @app.exception_handler(Unicorn)
    async def unicorn(request: Request, error: Unicorn) -> JSONResponse:
        return JSONResponse({"message": f"Oops! {error} at {request.url.path}"}, status_code=418)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> PlainTextResponse:
        del request
        return PlainTextResponse("; ".join(str(one["loc"]) for one in error.errors()), status_code=400)

    @app.get("/items/{number}")
    async def read(number: int) -> int:
        if number == 3:
            raise Unicorn("three")

        if number == 4:
            raise HTTPException(404, {"reason": ["gone"]})

        if number:
            raise HTTPException(404, "Item not found", headers={"X-Error": "There goes my error"})

        return number

    return app, [get(f"/items/{number}") for number in (0, 1, 3, 4, "x")] + [
        get("/nothing"),
        post("/items/1", 1),
    ]


def custom_request_and_route(kit: Kit) -> Made:
    """A route class whose request unpacks its body."""

    class GzipRequest(Request):
        async def body(self) -> bytes:
            if not hasattr(self, "_body"):
                self._body = gzip.decompress(await super().body())

            return self._body

    class GzipRoute(kit.route):  # type: ignore[misc, name-defined]  # of the kit
        def get_route_handler(self) -> Any:
            handle = super().get_route_handler()

            async def unpacked(request: Request) -> Response:
                reply: Response = await handle(GzipRequest(request.scope, request.receive))
                reply.headers["x-route"] = "gzip"
                return reply

            return unpacked

    app = kit.app()
    app.router.route_class = GzipRoute

    @app.post("/sum")
    async def total(numbers: Annotated[list[int], Body()]) -> dict[str, int]:
        return {"sum": sum(numbers)}

    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    return app, [("POST", "/sum", {"content": gzip.compress(b"[1, 2, 3]"), "headers": headers})]


def websockets(kit: Kit) -> Made:
    """A conversation with a path, a query and a dependency."""
    app = kit.app()
    kit.sockets.append("/items/foo/ws?token=t&q=3")

    async def token(token: Annotated[str | None, Query()] = None) -> str:
        return token or "none"

    @app.websocket("/items/{item_id}/ws")
    async def endpoint(
        websocket: WebSocket, item_id: str, session: Annotated[str, Depends(token)], q: int | None = None
    ) -> None:
        await websocket.accept()
        data = await websocket.receive_text()
        await websocket.send_text(f"{session} {q} {data} for {item_id}")
        await websocket.close(1000)

    return app, []


def separate_openapi_schemas(kit: Kit) -> Made:
    """Input and output of one model, in one schema."""
    app = kit.app(separate_input_output_schemas=False)

    @app.post("/items/")
    def create(item: Item) -> Item:
        return item

    @app.get("/items/")
    def read() -> list[Item]:
        return [Item(name="lamp", price=1), Item(name="desk", price=2, description="wood")]

    return app, [post("/items/", {"name": "lamp", "price": 1}), get("/items/")]


def static_files(kit: Kit) -> Made:
    """Files beside routes."""
    app = kit.app()
    app.mount("/static", StaticFiles(directory=Folder(__file__).parent), name="static")

    @app.get("/where")
    async def where(request: Request) -> str:
        return str(request.url_for("static", path="/_support.py"))

    return app, [get("/static/_support.py"), get("/static/nothing"), get("/where")]


def openapi_callbacks(kit: Kit) -> Made:
    """What the service will ask of its client, and a webhook."""
    app = kit.app()
    callbacks = fastapi.APIRouter()

    @callbacks.post("{$callback_url}/invoices/{$request.body.name}", response_model=PublicUser)
    def notify(body: Item) -> None:
        """Receive a notification."""

    @app.post("/invoices/", callbacks=callbacks.routes)
    def create_invoice(item: Item, callback_url: HttpUrl | None = None) -> dict[str, str]:
        """
        Create an invoice.

        The client is notified.
        """
        return {"msg": f"Invoice received for {item.name}, {callback_url}"}

    return app, [post("/invoices/?callback_url=https://shop.example", {"name": "lamp", "price": 1})]


def configure_swagger_ui(kit: Kit) -> Made:
    """Parameters of the documentation's page."""
    app = kit.app(swagger_ui_parameters={"syntaxHighlight": {"theme": "obsidian"}}, title="Shop")
    return app, [get("/docs"), get("/redoc"), get("/docs/oauth2-redirect")]


def response_directly(kit: Kit) -> Made:
    """Replies that are built by hand."""
    app = kit.app()

    @app.get("/legacy/")
    def legacy() -> Any:
        return Response("<shampoo/>", media_type="application/xml")

    @app.get("/page/", response_class=HTMLResponse)
    def page() -> str:
        return "<p>Hello</p>"

    @app.get("/text/", response_class=PlainTextResponse)
    def text() -> Any:
        return "Hello"

    return app, [get("/legacy/"), get("/page/"), get("/text/")]


def advanced_middleware(kit: Kit) -> Made:
    """Hosts that are known, replies that are packed, and a function around all."""
    app = kit.app()
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["testserver", "*.example.com"])
    app.add_middleware(GZipMiddleware, minimum_size=10)

    @app.middleware("http")
    async def timed(request: Request, call_next: Any) -> Response:
        reply: Response = await call_next(request)
        reply.headers["x-process-time"] = "1"
        return reply

    @app.get("/")
    async def main() -> PlainTextResponse:
        return PlainTextResponse("Hello " * 20)

    return app, [
        get("/", host="testserver"),
        get("/", host="a.example.com", accept_encoding="gzip"),
        get("/", host="b"),
    ]


def stream_json_lines(kit: Kit) -> Made:
    """A line for each item that is yielded."""
    app = kit.app()

    @app.get("/stream")
    async def stream() -> AsyncIterable[Item]:
        for number in range(3):
            yield Item(name=str(number), price=number)

    @app.get("/sync")
    def sync() -> Iterable[Item]:
        yield Item(name="only", price=1)

    @app.get("/untyped")
    async def untyped() -> Any:
        yield {"a": 1}

    return app, [get("/stream"), get("/sync"), get("/untyped")]


def bigger_applications(kit: Kit) -> Made:
    """Routers with prefixes, tags, responses and dependencies of their own."""

    async def token(x_token: Annotated[str, Header()]) -> None:
        if x_token != "fake":
            raise HTTPException(400, "X-Token header invalid")

    items = kit.router(
        prefix="/items",
        tags=["items"],
        dependencies=[Depends(token)],
        responses={404: {"description": "Not found"}},
    )

    @items.get("/{item_id}", name="one item", summary="Read an item")
    async def read(item_id: str) -> dict[str, str]:
        return {"id": item_id}

    @items.put("/{item_id}", tags=["custom"], responses={403: {"description": "Operation forbidden"}})
    async def update(item_id: str) -> dict[str, str]:
        raise HTTPException(403, f"You can only update the item: plumbus, not {item_id}")

    admin = kit.router()
    admin.include_router(items, prefix="/admin", tags=["admin"], deprecated=True)
    app = kit.app(dependencies=[Depends(lambda: None)])
    app.include_router(items)
    app.include_router(admin, responses={418: {"description": "I'm a teapot"}})
    good = {"headers": {"x-token": "fake"}}
    return app, [
        ("GET", "/items/a", good),
        ("PUT", "/items/a", good),
        ("GET", "/admin/items/a", good),
        get("/items/a", x_token="no"),
        get("/items/a"),
    ]


def cors(kit: Kit) -> Made:
    """What other origins may ask."""
    app = kit.app()
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["https://shop.example"],
        allow_credentials=True,
        allow_methods=["*"],
        allow_headers=["x-token"],
    )

    @app.get("/")
    async def main() -> dict[str, str]:
        return {"message": "Hello World"}

    asks: list[Ask] = []

    for origin in ("https://shop.example", "https://evil.example"):
        asked = {"origin": origin, "access-control-request-method": "GET"}
        asks += [get("/", origin=origin), ("OPTIONS", "/", {"headers": asked})]

    return app, asks


def custom_docs_ui(kit: Kit) -> Made:
    """The documentation's page from other files, and OpenAPI elsewhere."""
    app = kit.app(docs_url=None, redoc_url=None, openapi_url="/api/openapi.json")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/api/openapi.json", title=app.title, swagger_js_url="/static/ui.js"
        )

    return app, [get("/docs"), get("/redoc"), get("/openapi.json")]


REPLY_FEATURES = (
    response_headers,
    error_in_words_of_its_own,
    response_class_with_a_prefix,
    additional_status_codes,
    response_cookies,
    response_model,
    handling_errors,
    custom_request_and_route,
    websockets,
    separate_openapi_schemas,
    static_files,
    openapi_callbacks,
    configure_swagger_ui,
    response_directly,
    advanced_middleware,
    stream_json_lines,
    bigger_applications,
    cors,
    custom_docs_ui,
)
