"""The applications that the benchmarks of ws-web compare, and a process that serves one of them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import fastapi
import uvicorn
from fastapi import FastAPI, Response, WebSocket
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from ws_web import APIRoute, MessageHandler, Settings, WsChatConnectionManager, create_app, ok_raw

__all__ = ("APPS", "Served")

# Any below: ASGI applications.

READY = b'{"id":1,"name":"lamp","price":9.5,"tags":["a","b"]}'


class Item(BaseModel):
    """What the routes return."""

    id: int
    name: str
    price: float
    tags: list[str]


ONE = Item(id=1, name="lamp", price=9.5, tags=["a", "b"])
MANY = [Item(id=number, name=f"lamp {number}", price=1.5, tags=["a", "b"]) for number in range(100)]


def _routes(app: FastAPI) -> FastAPI:
    @app.get("/one")
    async def one() -> Item:
        return ONE

    @app.get("/many")
    async def many() -> list[Item]:
        return MANY

    return app


def plain() -> Any:
    """FastAPI as it is."""
    app = _routes(FastAPI())

    @app.get("/raw")
    async def raw() -> Response:
        return Response(READY, media_type="application/json")

    return app


def enveloped() -> Any:
    """FastAPI with our routes, without our middlewares."""
    app = FastAPI()
    app.router.route_class = APIRoute
    _routes(app)

    @app.get("/raw")
    async def raw() -> Response:
        return ok_raw(READY)

    return app


def _created(*, log: bool = False, handler: bool = False, envelope: bool = False) -> Any:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if not handler:
            yield
            return

        own = logging.FileHandler("/dev/null")
        logging.root.addHandler(own)

        try:
            yield
        finally:
            logging.root.removeHandler(own)
            own.close()

    settings = Settings(ACCESS_LOG="text" if log else "off")
    app = create_app(settings, health=False, lifespan=lifespan)

    if not envelope:
        app.router.route_class = fastapi.routing.APIRoute

    return _routes(app)


def naive() -> Any:
    """Starlette with a loop over its sockets; each message is sent to all."""
    sockets: list[WebSocket] = []

    async def endpoint(ws: WebSocket) -> None:
        await ws.accept()
        sockets.append(ws)

        async for message in ws.iter_text():
            for one in sockets:
                await one.send_text(message)

    return Starlette(routes=[WebSocketRoute("/ws", endpoint)])


def managed() -> Any:
    """Our manager; each message is broadcast."""
    app = create_app(Settings(ACCESS_LOG="off"), health=False)
    manager = WsChatConnectionManager(queue_size=1000)

    class Echo(MessageHandler):
        async def on_message(self, key: Any, ws: WebSocket, message: Any) -> None:
            await manager.broadcast(message)

    @app.websocket("/ws")
    async def endpoint(ws: WebSocket) -> None:
        await manager.append(id(ws), ws, Echo())
        await manager.handle_message(id(ws))

    return app


APPS: dict[str, Callable[[], Any]] = {
    "plain": plain,
    "enveloped": enveloped,
    "stack": _created,
    "stack and log": lambda: _created(log=True),
    "stack and handler": lambda: _created(log=True, handler=True),
    "both": lambda: _created(envelope=True),
    "naive": naive,
    "managed": managed,
}


def _serve(name: str, pipe: Connection) -> None:
    # For the access log, to the end.
    sys.stderr = Path(os.devnull).open("w", buffering=1, encoding="utf-8")  # noqa: SIM115
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    pipe.send(listener.getsockname()[1])
    uvicorn.Server(uvicorn.Config(APPS[name](), access_log=False, log_level="warning")).run([listener])


class Served:
    """A process of uvicorn that serves one of the applications."""

    def __init__(self, name: str) -> None:
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_serve, args=(name, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.port: int = ours.recv()

    def cpu(self) -> float:
        """Return how many seconds the server's own thread has run so far."""
        text = Path(f"/proc/{self._process.pid}/schedstat").read_text(encoding="ascii")
        return int(text.split()[0]) / 1e9

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.join()
