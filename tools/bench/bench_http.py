"""HTTP pools against the raw aiohttp session below them, and httpx."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import Any

import aiohttp
import httpx

from tools.bench.harness import Candidate, Case, Suite, Target, main
from ws_pool.http import HttpClient, HttpPool

ABOUT = """\
A GET of 32 bytes from a server in a process of its own that parses next to nothing, so that the client
is what is measured. "aiohttp" is `async with session.get(url) as r: await r.read()`, without retries,
counters, checks, timings or errors of its own; ours is made on top of it. "N callers" are N tasks
that each make one request after the other over the same pool."""

ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 32\r\n\r\n"
    b'{"v":"' + b"x" * 24 + b'"}'
)


class Answers(asyncio.Protocol):
    """The least that can be called a web server."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport: Any = transport  # a transport that can write
        self._seen = b""

    def data_received(self, data: bytes) -> None:
        """Answer each request."""
        self._seen += data

        while b"\r\n\r\n" in self._seen:
            self._seen = self._seen.partition(b"\r\n\r\n")[2]
            self._transport.write(ANSWER)


def serve(pipe: Connection) -> None:
    """Run the server until the pipe is closed."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Answers, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await loop.run_in_executor(None, pipe.poll, None)

    asyncio.run(run())


class Web:
    """The server, and one client of each kind."""

    def __init__(self) -> None:
        self.url = ""
        self.pool: HttpPool | None = None
        self.client: HttpClient | None = None
        self.session: aiohttp.ClientSession | None = None
        self.httpx: httpx.AsyncClient | None = None

    def start(self) -> None:
        """Start the server."""
        ours, theirs = multiprocessing.Pipe()
        self._pipe = ours
        self._process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(theirs,), daemon=True
        )
        self._process.start()
        theirs.close()
        self.url = f"http://127.0.0.1:{ours.recv()}"

    async def open(self) -> None:
        """Open all clients, once."""
        if not self.url:
            self.start()

        if self.pool is None:
            self.pool = HttpPool(base_url=self.url)
            await self.pool.start()
            self.client = self.pool.client
            self.session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
            self.httpx = httpx.AsyncClient()

    async def close(self) -> None:
        """Close what is open."""
        if self.pool is not None and self.session is not None and self.httpx is not None:
            await self.pool.close()
            await self.session.close()
            await self.httpx.aclose()
            self.pool = self.client = self.session = self.httpx = None

    async def ours(self) -> None:
        """Get with ws-pool."""
        (await self.client.get("/v")).content  # type: ignore[union-attr]  # noqa: B018 - open() has run

    async def raw(self) -> None:
        """Get with aiohttp."""
        async with self.session.get(f"{self.url}/v") as response:  # type: ignore[union-attr] # open() has run
            await response.read()

    async def theirs(self) -> None:
        """Get with httpx."""
        (await self.httpx.get(f"{self.url}/v")).content  # type: ignore[union-attr]  # noqa: B018 - open() has run


def callers(get: Callable[[], Awaitable[None]], count: int, requests: int) -> Callable[[], Awaitable[int]]:
    """Make a round of some callers, which returns how many requests it made."""

    async def caller() -> None:
        for _ in range(requests // count):
            await get()

    async def run() -> int:
        await asyncio.gather(*(caller() for _ in range(count)))
        return requests // count * count

    return run


def suite(quick: bool) -> Suite:
    """Build the suite."""
    web = Web()
    requests = 200 if quick else 500
    few = max(100, requests // 5)  # httpx takes some ten times as long
    cases = [
        Case(
            f"GET, {count} caller{'s' if count > 1 else ''}",
            operations=requests,
            candidates=tuple(
                Candidate(name, run=callers(get, count, number), setup=web.open, teardown=web.close)
                for name, get, number in (
                    ("ws-pool", web.ours, requests),
                    ("aiohttp", web.raw, requests),
                    ("httpx", web.theirs, few),
                )
            ),
            targets=(
                Target("ws-pool", peer="aiohttp", at_most=1.05, metric="cpu"),
                Target("ws-pool", peer="aiohttp", at_least=0.95),
            ),
            rounds=5 if quick else 101,
            show="cpu",
        )
        for count in (1, 50)
    ]
    return Suite(
        name="http",
        title="HTTP requests",
        packages=("ws-pool", "aiohttp", "httpx"),
        about=ABOUT,
        cases=tuple(cases),
    )


if __name__ == "__main__":
    main(suite)
