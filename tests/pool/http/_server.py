"""A web server that answers as tests need it, and one that breaks the rules of HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

BIG = bytes(range(256)) * 12_000


class Site:
    """A running web server with counters of what reached it."""

    def __init__(self) -> None:
        self.url = ""
        self.hits: list[str] = []
        self.ranges: list[str | None] = []
        self.script: list[Callable[[], web.Response]] = []
        self.handle: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        self.gate = asyncio.Event()
        self.reached = asyncio.Event()

    async def echo(self, request: web.Request) -> web.Response:
        """Return what was sent."""
        self.hits.append(request.path)
        body = await request.read()
        data = {
            "method": request.method,
            "path": request.path,
            "query": {key: request.query.getall(key) for key in request.query},
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "cookies": dict(request.cookies),
            "body": body.decode("latin-1"),
        }
        response = web.json_response(data)
        response.set_cookie("seen", "yes")
        return response

    async def status(self, request: web.Request) -> web.Response:
        """Answer with a status."""
        self.hits.append(request.path)
        return web.Response(status=int(request.match_info["code"]), text="as requested")

    async def scripted(self, request: web.Request) -> web.Response:
        """Answer with the next response of the script."""
        self.hits.append(request.method)
        return self.script.pop(0)() if self.script else web.json_response({"ok": True})

    async def form(self, request: web.Request) -> web.Response:
        """Return the parts of a multipart form."""
        self.hits.append(request.path)
        found: dict[str, object] = {}

        if not self.script:
            for name, value in (await request.post()).items():
                if isinstance(value, web.FileField):
                    content = value.file.read().decode("latin-1")
                    found[name] = [value.filename, value.content_type, content]
                else:
                    found[name] = str(value)

            return web.json_response(found)

        await request.read()
        return self.script.pop(0)()

    async def big(self, request: web.Request) -> web.StreamResponse:
        """Send a large body, or the part asked for."""
        self.ranges.append(request.headers.get("range"))
        start = request.http_range.start or 0
        same = request.headers.get("if-range", '"v1"') == '"v1"'

        if not same:
            start = 0

        status = 206 if start else 200

        if start >= len(BIG):
            return web.Response(status=416)

        response = web.StreamResponse(status=status, headers={"etag": '"v1"'})

        if start:
            response.headers["content-range"] = f"bytes {start}-{len(BIG) - 1}/{len(BIG)}"

        response.content_length = len(BIG) - start
        await response.prepare(request)
        half = len(BIG) // 2

        if request.query.get("cut") and not start:
            await response.write(BIG[:half])
            assert request.transport is not None
            request.transport.close()
            return response

        await response.write(BIG[start:])
        return response

    async def handled(self, request: web.Request) -> web.StreamResponse:
        """Answer with the test's own function."""
        assert self.handle is not None
        return await self.handle(request)

    async def slow(self, _: web.Request) -> web.Response:
        """Answer when the gate opens."""
        self.hits.append("slow")
        self.reached.set()
        await self.gate.wait()
        return web.Response(text="late")

    async def loop(self, _: web.Request) -> web.Response:
        """Redirect for ever."""
        raise web.HTTPFound("/loop")

    async def latin(self, request: web.Request) -> web.Response:
        """Answer in an encoding of choice."""
        kind = f"text/plain; charset={request.query['charset']}"
        return web.Response(body="żółć".encode("iso-8859-2"), headers={"content-type": kind})

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        """Echo messages."""
        socket = web.WebSocketResponse(protocols=("shop",))
        await socket.prepare(request)

        async for message in socket:
            await socket.send_str(f"{request.headers.get('x-who')}: {message.data}")

        return socket


@asynccontextmanager
async def serve(unix_socket: str | None = None) -> AsyncIterator[Site]:
    """Run the server on a free port, or on a unix socket."""
    site = Site()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/echo{tail:.*}", site.echo)
    app.router.add_route("*", "/status/{code}", site.status)
    app.router.add_route("*", "/scripted", site.scripted)
    app.router.add_route("*", "/handled", site.handled)
    app.router.add_route("*", "/form", site.form)
    app.router.add_route("*", "/big", site.big)
    app.router.add_route("*", "/slow", site.slow)
    app.router.add_route("*", "/loop", site.loop)
    app.router.add_route("*", "/latin", site.latin)
    app.router.add_route("*", "/socket", site.socket)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()

    if unix_socket is None:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        site.url = f"http://{host}:{port}"
    else:
        await web.UnixSite(runner, unix_socket).start()
        site.url = "http://shop"

    try:
        yield site
    finally:
        site.gate.set()
        await runner.cleanup()


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serve_raw(handle: Handler) -> AsyncIterator[str]:
    """Run a raw server, one call of the handler for each connection; wait for their end."""
    running: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)

        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await handle(reader, writer)
        finally:
            writer.close()

            with contextlib.suppress(OSError):
                await writer.wait_closed()

            running.discard(task)

    server = await asyncio.start_server(run, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()

    async with server:
        yield f"http://{host}:{port}"

        while running:
            await asyncio.wait(running, timeout=10)


@asynccontextmanager
async def serve_bytes(
    *answers: bytes | None, heads: list[str] | None = None, hold: bool = False
) -> AsyncIterator[tuple[str, list[str]]]:
    """
    Answer the n-th connection's request with given bytes, and close; None closes without an answer.

    ``heads`` collects the requests' heads; with ``hold`` it is the client that closes.
    """
    lines: list[str] = []
    left = list(answers)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines.append(head.split(b"\r\n")[0].decode())

        if heads is not None:
            heads.append(head.decode())

        answer = left.pop(0) if left else None

        if answer is not None:
            writer.write(answer)
            await writer.drain()

        if hold:
            await reader.read()

    async with serve_raw(handle) as url:
        yield url, lines
