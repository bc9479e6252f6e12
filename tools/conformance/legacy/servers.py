"""The servers that the behaviours talk to: MariaDB, Redis, MongoDB's protocol, HTTP and NTP."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

from aiohttp import web

from tools.servers import MariaDBServer, MongoServer, RedisServer

__all__ = ("servers",)

_NTP_EPOCH = 2_208_988_800  # seconds from 1900, where NTP begins, to 1970
_AHEAD = 100  # seconds by which our NTP server is ahead


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """Start all of them, and return the variables of the environment that name them."""
    with ExitStack() as stack:
        mariadb = stack.enter_context(MariaDBServer())
        redis = stack.enter_context(RedisServer())
        mongo = stack.enter_context(MongoServer())
        mariadb.execute("CREATE DATABASE IF NOT EXISTS test")

        yield {
            "LEGACY_MYSQL_PORT": str(mariadb.port),
            "LEGACY_REDIS_PORT": str(redis.port),
            "LEGACY_MONGO": mongo.url,
            "LEGACY_HTTP_PORT": str(stack.enter_context(_http())),
            "LEGACY_NTP_PORT": str(stack.enter_context(_ntp())),
        }


@contextmanager
def _http() -> Iterator[int]:
    """Serve what the requests of the behaviours ask for, in a thread."""
    loop = asyncio.new_event_loop()
    # Uploads are written by threads of the loop, which live as long as the server does: they bear its name.
    loop.set_default_executor(ThreadPoolExecutor(1, "ws-servers-http"))
    app = web.Application()
    app.router.add_route("*", "/echo", _echo)
    app.router.add_post("/form", _form)
    app.router.add_route("*", "/count", _count)
    app.router.add_get("/file", _file)
    app.router.add_get("/moved", _moved)
    runner = web.AppRunner(app)

    async def start() -> int:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port: int = runner.addresses[0][1]
        return port

    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _echo(request: web.Request) -> web.Response:
    body = await request.text()
    headers = {key.lower(): value for key, value in request.headers.items()}
    return web.json_response(
        {"method": request.method, "query": dict(request.query), "headers": headers, "body": body}
    )


async def _form(request: web.Request) -> web.Response:
    fields = await request.post()
    found = {
        key: value if isinstance(value, str) else [value.filename, value.file.read().decode()]
        for key, value in fields.items()
        if not isinstance(value, (bytes, bytearray))
    }
    return web.json_response(found)


async def _count(request: web.Request) -> web.Response:
    return web.json_response([request.method, len(await request.read())])


async def _file(_request: web.Request) -> web.Response:
    return web.Response(body=b"x" * 300_000)


async def _moved(_request: web.Request) -> web.Response:
    raise web.HTTPFound("/echo")


@contextmanager
def _ntp() -> Iterator[int]:
    """Answer NTP requests with a time that is ahead, in a thread."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(0.1)
        ended = threading.Event()
        thread = threading.Thread(target=_answer, args=(listener, ended), daemon=True)
        thread.start()

        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            thread.join()


def _answer(listener: socket.socket, ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            request, address = listener.recvfrom(1024)
        except TimeoutError:
            continue

        now = _stamp(time.time() + _AHEAD)
        # RFC 5905, figure 8: flags, stratum, poll, precision, delay, dispersion, id, and four times.
        reply = struct.pack("!BBbbII4s", 0x1C, 1, 0, -20, 0, 0, b"TEST") + now + request[40:48] + now + now
        listener.sendto(reply, address)


def _stamp(seconds: float) -> bytes:
    whole = int(seconds)
    return struct.pack("!II", whole + _NTP_EPOCH, int((seconds - whole) * 2**32))
