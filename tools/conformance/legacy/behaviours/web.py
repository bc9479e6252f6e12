"""Applications: envelope, errors, requests, settings and WebSockets."""

import asyncio
import json
import os
import time

from ._setup import behaviour


def settings_module(**values):
    """Make a settings module, and let the settings read it."""
    import sys
    import types

    module = types.ModuleType("legacy_settings")
    values.setdefault("LOGGING_CONFIG", {"level": "error"})
    values.setdefault("DEBUG", False)
    for name, value in values.items():
        setattr(module, name, value)
    sys.modules["legacy_settings"] = module
    os.environ["WINTERSWEET_SETTINGS_MODULE"] = "legacy_settings"


async def asked(app, method, path, headers=(), body=b""):
    """Send one request to an application, and return status, headers and body."""
    path, _, query = path.partition("?")
    sent = []
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        return parts.pop(0) if parts else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(b"host", b"shop")] + [(k.encode(), v.encode()) for k, v in headers],
        "client": ("10.0.0.9", 4000),
        "server": ("shop", 80),
    }
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], dict((k.decode(), v.decode()) for k, v in sent[0]["headers"]), body


async def replied(app, method, path, headers=(), body=b""):
    """Send one request, and return the status and the envelope."""
    status, _, text = await asked(app, method, path, headers, body)
    return [status, json.loads(text)]


def without_id(reply):
    """Return a reply without its request id, which is another each time."""
    status, envelope = reply
    return [status, {key: envelope.get(key) for key in ("code", "data", "msg", "extra")}]


@behaviour
async def web_envelope():
    """A route returns a `Response`, which is sent in the envelope."""
    settings_module()
    from wintersweet.framework.fastapi.app import create_app
    from wintersweet.framework.fastapi.request import APIRouter
    from wintersweet.framework.fastapi.response import Response

    router = APIRouter(prefix="/items")

    @router.get("/one")
    async def one():
        return Response({"id": 1}, extra={"page": 2})

    @router.get("/plain")
    def plain():
        return [1, 2]

    app = create_app()
    app.include_router(router)
    return [
        without_id(await replied(app, "GET", "/items/one")),
        without_id(await replied(app, "GET", "/items/plain")),
    ]


@behaviour
async def web_codes():
    """`code` is a number or a member of an Enum; the message of an unknown one."""
    settings_module()
    from enum import Enum

    from wintersweet.framework.fastapi.app import create_app
    from wintersweet.framework.fastapi.request import APIRouter
    from wintersweet.framework.fastapi.response import Response

    class Code(Enum):
        NO_MONEY = 4001

    router = APIRouter()

    @router.get("/a")
    async def a():
        return Response(code=Code.NO_MONEY)

    @router.get("/b")
    async def b():
        return Response("text", 7, 202)

    app = create_app()
    app.include_router(router)
    return [without_id(await replied(app, "GET", "/a")), without_id(await replied(app, "GET", "/b"))]


@behaviour
async def web_own_messages():
    """`build_msg` of a subclass looks at `self._code`."""
    settings_module()
    from wintersweet.framework.fastapi.app import create_app
    from wintersweet.framework.fastapi.request import APIRouter
    from wintersweet.framework.fastapi.response import Response

    class Mine(Response):
        def build_msg(self):
            return {0: "fine", 5: "five"}[self._code]

    router = APIRouter(default_response_class=Mine)

    @router.get("/a")
    async def a():
        return Mine(1, code=5)

    @router.get("/b")
    async def b():
        return 2

    @router.get("/c")
    async def c():
        return Mine(3, code=99)

    app = create_app()
    app.include_router(router)
    return [without_id(await replied(app, "GET", path)) for path in ("/a", "/b", "/c")]


@behaviour
async def web_raised_response():
    """`raise ErrResponse(...)` answers; a subclass has its own message."""
    settings_module()
    from wintersweet.framework.fastapi.app import create_app
    from wintersweet.framework.fastapi.request import APIRouter
    from wintersweet.framework.fastapi.response import ErrResponse

    class Mine(ErrResponse):
        def build_msg(self):
            return "no money"

    router = APIRouter()

    @router.get("/a")
    async def a():
        raise Mine({"need": 5}, code=4001, status_code=402, extra=[1])

    app = create_app()
    app.include_router(router)
    return without_id(await replied(app, "GET", "/a"))


@behaviour
def web_response_data():
    """A response has its `data`, its status and its body."""
    from wintersweet.framework.fastapi.response import Response

    reply = Response({"a": 1}, code=3, status_code=201, headers={"x-mine": "yes"})
    return [reply.data, reply.status_code, reply.headers["x-mine"], json.loads(reply.body)["data"]]


@behaviour
def web_response_is_true():
    """A response with code 0 is true, another is false."""
    from wintersweet.framework.fastapi.response import Response

    return [bool(Response(1)), bool(Response(1, code=5))]


@behaviour
def web_ready_responses():
    """The responses of 400, 404, 405, 500 and of any status."""
    from wintersweet.framework.fastapi.response import (
        HTTP400Response,
        HTTP404Response,
        HTTP405Response,
        HTTP500Response,
        HTTPExceptionResponse,
    )

    found = []
    for reply in (
        HTTP400Response([{"loc": "a"}]),
        HTTP404Response(),
        HTTP405Response(),
        HTTP500Response(),
        HTTPExceptionResponse(418, "teapot"),
    ):
        envelope = json.loads(reply.body)
        found.append([reply.status_code, envelope["code"], envelope["data"]])
    return found


@behaviour
async def web_error_handlers():
    """EXCEPTION_HANDLERS of the settings, with the handlers of the package."""
    from fastapi import HTTPException
    from fastapi.exceptions import RequestValidationError

    from wintersweet.framework.fastapi.exception_handlers import (
        http_exception_handler,
        request_validation_exception_handler,
    )

    settings_module(
        EXCEPTION_HANDLERS=[
            {"cls": HTTPException, "handler": http_exception_handler},
            {"cls": RequestValidationError, "handler": request_validation_exception_handler},
        ]
    )
    from wintersweet.framework.fastapi.app import create_app
    from wintersweet.framework.fastapi.request import APIRouter

    router = APIRouter()

    @router.get("/a")
    async def a():
        raise HTTPException(status_code=403, detail="not yours")

    @router.get("/b")
    async def b(number: int):
        return number

    app = create_app()
    app.include_router(router)
    status, refused = await replied(app, "GET", "/b?number=x")
    return [
        without_id(await replied(app, "GET", "/a")),
        [status, refused["code"], refused["data"][0]["loc"]],
        without_id(await replied(app, "GET", "/b?number=3")),
    ]


@behaviour
async def web_middlewares():
    """MIDDLEWARES of the settings as dicts; the request id is in the reply's headers and envelope."""
    from wintersweet.framework.fastapi.middlewares import RequestIDMiddleware

    settings_module(MIDDLEWARES=[{"cls": RequestIDMiddleware, "options": {}}])
    from wintersweet.framework.fastapi.app import create_app
    from wintersweet.framework.fastapi.request import APIRouter, Request
    from wintersweet.framework.fastapi.response import Response

    router = APIRouter()

    @router.get("/a")
    async def a(request: Request):
        return Response([request.request_id, RequestIDMiddleware.get_request_id()])

    app = create_app()
    app.include_router(router)
    _, headers, body = await asked(app, "GET", "/a")
    envelope = json.loads(body)
    one = {headers["x-request-id"], envelope["request_id"], *envelope["data"]}
    return [len(one), abs(int(headers["x-timestamp"]) - time.time()) < 5]


@behaviour
async def web_request_properties():
    """What the request of a route has."""
    settings_module(TRUSTED_PROXIES=["10.0.0.9"])
    from wintersweet.framework.fastapi.app import create_app
    from wintersweet.framework.fastapi.request import APIRouter, Request
    from wintersweet.framework.fastapi.response import Response

    router = APIRouter()

    @router.post("/a/{name}", tags=["shop"])
    async def a(request: Request, name: str):
        return Response(
            [
                request.path,
                request.tags,
                request.referer,
                request.client_ip,
                request.x_forwarded_for,
                request.content_type,
                request.content_length,
                request.get_header("x-mine"),
                request.get_header("x-none", "default"),
                request.route.path,
                request.debug_info["method"],
                request.debug_info["path"],
            ]
        )

    app = create_app()
    app.include_router(router)
    headers = [
        ("referer", "http://other"),
        ("x-forwarded-for", "9.9.9.9"),
        ("content-type", "text/plain"),
        ("content-length", "2"),
        ("x-mine", "yes"),
    ]
    return (await replied(app, "POST", "/a/ann", headers, b"hi"))[1]["data"]


@behaviour
async def web_prepare():
    """`prepare(request)` of a route class runs before the endpoint, and may refuse."""
    settings_module()
    from wintersweet.framework.fastapi.app import create_app
    from wintersweet.framework.fastapi.request import APIRoute, APIRouter
    from wintersweet.framework.fastapi.response import ErrResponse, Response

    class Checked(APIRoute):
        async def prepare(self, request):
            if request.get_header("x-key") != "yes":
                raise ErrResponse(code=401)

    router = APIRouter(route_class=Checked)

    @router.get("/a")
    async def a():
        return Response("in")

    app = create_app()
    app.include_router(router)
    return [
        without_id(await replied(app, "GET", "/a")),
        without_id(await replied(app, "GET", "/a", [("x-key", "yes")])),
    ]


@behaviour
async def web_startup_functions():
    """`on_startup` of APP_CONFIG runs."""
    seen = []

    async def start():
        seen.append("started")

    settings_module(APP_CONFIG={"debug": False, "on_startup": [start], "title": "Shop"})
    from wintersweet.framework.fastapi.app import create_app

    app = create_app()
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive():
        return messages.pop(0)

    async def send(message):
        seen.append(message["type"])

    await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    return [seen, app.title]


@behaviour
def web_settings():
    """`settings` has the names of the module and the defaults."""
    settings_module(SHOP_NAME="lamp", LISTEN_PORT=9001)
    from wintersweet.framework.conf import settings

    settings.initialize()
    return [settings.SHOP_NAME, settings.LISTEN_PORT, dict(settings.DATABASES), settings.DEBUG]


@behaviour
def web_default_settings():
    """`global_setting` has the names of the defaults."""
    from wintersweet.framework.conf import global_setting

    return sorted(
        name
        for name in (
            "APP_CONFIG DATABASES DEBUG ES_CONFIG EXCEPTION_HANDLERS LISTEN_PORT LOGGING_CONFIG "
            "MIDDLEWARES PROCESS_NUM REDIS_CONFIG SECRET"
        ).split()
        if hasattr(global_setting, name)
    )


@behaviour
async def web_socket_chat():
    """`append`, `handle_message`, `send_message` and `get_client` of a chat."""
    settings_module(ALLOWED_ORIGINS=["*"])
    from starlette.websockets import WebSocket

    from wintersweet.framework.fastapi.ws import MessageHandler, WsChatConnectionManager

    sent = []
    inbox = asyncio.Queue()

    async def receive():
        return await inbox.get()

    async def send(message):
        sent.append(message)

    manager = WsChatConnectionManager(limit=5, heartbeat_timeout=10, timeout_count=3)

    class Echo(MessageHandler):
        @staticmethod
        async def hello(*args):
            pass

        @staticmethod
        async def on_message(key, ws, message):
            await manager.send_message(key, "%s: %s" % (key, message))

    scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "client": ("10.0.0.9", 1)}
    ws = WebSocket(scope, receive, send)
    await inbox.put({"type": "websocket.connect"})
    await manager.append(key="ann", ws=ws, message_handle_class=Echo)
    known = manager.get_client("ann") is not None
    task = asyncio.ensure_future(manager.handle_message("ann", receive_func="receive_text"))
    await inbox.put({"type": "websocket.receive", "text": "hi"})
    await asyncio.sleep(0.3)
    direct = await manager.send_message("ann", {"a": 1})
    missing = await manager.send_message("bob", "text")
    await asyncio.sleep(0.2)
    await inbox.put({"type": "websocket.disconnect", "code": 1000})
    await asyncio.wait_for(task, 5)
    texts = [message["text"] for message in sent if message["type"] == "websocket.send"]
    return [known, direct, missing, texts[0], json.loads(texts[1]), manager.get_client("ann")]
