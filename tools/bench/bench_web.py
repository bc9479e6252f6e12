"""ws-web against plain FastAPI and Starlette: what the envelope, the middlewares and the sockets cost."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

from tools.bench._web_apps import APPS, Served
from tools.bench.harness import Candidate, Case, Round, Suite, Target, main

ABOUT = """\
CPU time, ours against the same route on plain FastAPI. In process the application is called as a
server calls it, so that nothing else is in the figures; through uvicorn (uvloop, httptools) it is
the CPU of the server's thread, with 8 connections that each send one request after the other.
"Enveloped" is our route class on a plain FastAPI, "stack" the default middlewares with routes of
FastAPI, "both" is what `create_app` returns. The access log writes each line to stderr, which is
/dev/null here; "a handler of logging" is a `FileHandler` that the application has configured.

Where rows fall short: FastAPI answers the small request in some 36 µs of one CPU, and a layer that only
passes messages on costs 0.6 µs of them. For each request the stack makes an id, adds five headers, guards
against failures and large bodies, and notes time, status and size, in two layers: 4 µs by themselves,
6 to 7 in a whole request.
Kept of what was tried: id, observation and headers in one layer instead of two with three passes over the
headers, ids from a stock that is filled 256 at a time, methods of one object in place of closures (13 to
14 µs before), which are coroutines only where something follows, and no object of their own where nothing
is shown; a field that calls pydantic directly (enveloped 1.08 before); the constant parts of a log
record made once, and no record where nobody has configured logging. Tried and not kept: leaving out
Starlette's outermost layers (0.4 µs, and other libraries look for them). Not built: one context variable
for request and settings (0.5 µs by itself), and log lines that are written together later: a worker
that is killed would lose them. Of the 6 µs of a line 2 are the write itself."""

HEADERS = [(b"host", b"shop.example"), (b"user-agent", b"bench"), (b"accept", b"*/*")]
REQUEST = "GET {} HTTP/1.1\r\nhost: shop.example\r\nuser-agent: bench\r\naccept: */*\r\n\r\n"
CONNECTIONS = 8
SOCKETS = 500
BROADCASTS = 10
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nhost: shop.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

ROWS = (
    ("enveloped, 1 item", "enveloped", "/one", 1.05),
    ("enveloped, 100 items", "enveloped", "/many", 1.02),
    ("default stack, access log off", "stack", "/one", 1.15),
    ("default stack, access log on", "stack and log", "/one", 1.25),
    ("default stack, access log to a handler of logging", "stack and handler", "/one", None),
    ("both, 1 item", "both", "/one", 1.20),
    ("ok_raw", "enveloped", "/raw", 1.08),
)


class InProcess:
    """An application that is called directly."""

    def __init__(self, name: str, path: str, count: int) -> None:
        self._app = APPS[name]()
        self._path = path
        self._count = count
        self._lifespan = self._app.router.lifespan_context(self._app)
        self._stderr = Path(os.devnull).open("w", buffering=1, encoding="utf-8")  # noqa: SIM115 - see close

    async def open(self) -> None:
        """Start it."""
        await self._lifespan.__aenter__()

    async def close(self) -> None:
        """Stop it."""
        await self._lifespan.__aexit__(None, None, None)
        self._stderr.close()

    async def run(self) -> None:
        """Call it for each request."""
        app, path = self._app, self._path

        with contextlib.redirect_stderr(self._stderr):
            for _ in range(self._count):
                await app(_scope(path), _receive, _send)


def _scope(path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": HEADERS,
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 80),
    }


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Any) -> None:
    """Take a message."""


class Through:
    """An application behind uvicorn, and connections to it."""

    def __init__(self, name: str, path: str, count: int) -> None:
        self._name = name
        self._request = REQUEST.format(path).encode()
        self._count = count
        self._served: Served | None = None
        self._connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def open(self) -> None:
        """Start the server and connect."""
        self._served = Served(self._name)
        self._connections = [
            await asyncio.open_connection("127.0.0.1", self._served.port) for _ in range(CONNECTIONS)
        ]

    async def close(self) -> None:
        """Disconnect, and stop the server."""
        for _, writer in self._connections:
            writer.close()

        if self._served is not None:
            self._served.stop()

    async def run(self) -> Round:
        """Send requests, and return what they cost the server."""
        assert self._served is not None
        before = self._served.cpu()
        await asyncio.gather(*(self._ask(*streams) for streams in self._connections))
        return Round(metrics={"cpu": (self._served.cpu() - before) / self._count})

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(self._count // CONNECTIONS):
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)


class Broadcast:
    """Sockets of one application, each of which gets every message."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._served: Served | None = None
        self._sockets: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def open(self) -> None:
        """Start the server, and open the sockets."""
        self._served = Served(self._name)

        for _ in range(SOCKETS):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._served.port)
            writer.write(HANDSHAKE)
            await reader.readuntil(b"\r\n\r\n")
            self._sockets.append((reader, writer))

    async def close(self) -> None:
        """Close the sockets, and stop the server."""
        for _, writer in self._sockets:
            writer.close()

        if self._served is not None:
            self._served.stop()

    async def run(self) -> Round:
        """Send some messages, and read each of them from each socket."""
        assert self._served is not None
        before = self._served.cpu()
        mask = os.urandom(4)
        text = b"x" * 64
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(text))
        frame = bytes((0x81, 0x80 | len(text))) + mask + masked

        for _ in range(BROADCASTS):
            self._sockets[0][1].write(frame)
            await asyncio.gather(*(reader.readexactly(2 + len(text)) for reader, _ in self._sockets))

        return Round(metrics={"cpu": (self._served.cpu() - before) / (BROADCASTS * SOCKETS)})


def _cases(*, quick: bool) -> list[Case]:
    cases = []

    for title, name, path, most in ROWS:
        count = (100 if path == "/many" else 400) * (1 if quick else 3)
        pair = ("ws-web", name), ("FastAPI", "plain")
        near = [(shown, InProcess(app, path, count)) for shown, app in pair]
        direct = [Candidate(shown, one.run, setup=one.open, teardown=one.close) for shown, one in near]
        targets = [] if most is None else [Target("ws-web", "FastAPI", at_most=most, metric="cpu")]
        cases.append(Case(f"{title}, in process", direct, count, targets, show="cpu"))
        far = [(shown, Through(app, path, count)) for shown, app in pair]
        served = [Candidate(shown, one.run, setup=one.open, teardown=one.close) for shown, one in far]
        cases.append(Case(f"{title}, uvicorn", served, count, targets, loop="uvloop", show="cpu"))

    managers = ("ws-web", Broadcast("managed")), ("Starlette, a loop", Broadcast("naive"))
    candidates = [Candidate(shown, one.run, setup=one.open, teardown=one.close) for shown, one in managers]
    target = Target("ws-web", "Starlette, a loop", at_most=1.5, metric="cpu")
    title = f"broadcast to {SOCKETS} sockets, uvicorn"
    cases.append(Case(title, candidates, BROADCASTS * SOCKETS, [target], loop="uvloop", show="cpu"))
    return cases


def build(quick: bool) -> Suite:
    """Build the suite."""
    packages = ["fastapi", "starlette", "pydantic", "uvicorn", "uvloop", "httptools", "websockets"]
    return Suite("web", "The web layer", _cases(quick=quick), packages, ABOUT)


if __name__ == "__main__":
    main(build)
