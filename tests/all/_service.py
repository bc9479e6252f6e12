"""A small service with an ops page, and a server with fixed replies, for commands that query one."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.all._support import running, until

TOKEN = "a-token-for-tests"
HOST = "127.0.0.2"
"""Another name of this machine, by which nobody may read without the token."""

APP = """
import asyncio
from contextlib import asynccontextmanager

from fastapi import Request
from fastapi.responses import JSONResponse, RedirectResponse
from ws_pool.redis import redis_pool_manager
from ws_redislock import MutexLock
from ws_tasks import IntervalTask, Scheduler
from ws_web import create_app


@asynccontextmanager
async def lifespan(app):
    async with Scheduler() as scheduler, MutexLock(redis_pool_manager, "the-till", 30).hold():
        scheduler.add(IntervalTask(0.2, tidy, name="tidy up"))
        yield


async def tidy():
    pass


app = create_app(lifespan=lifespan)


@app.get("/ok")
async def ok():
    return "ok"


@app.get("/fails")
async def fails():
    return JSONResponse({}, 503)


@app.get("/slow")
async def slow():
    await asyncio.sleep(30)


@app.get("/moved")
async def moved():
    return RedirectResponse("/fails")


@app.put("/echo")
async def echo(request: Request):
    fits = await request.body() == b"tea" and request.headers["x-kind"] == "green"
    return JSONResponse({}, 200 if fits else 400)
"""


@contextlib.contextmanager
def service(directory: Path, redis_url: str) -> Iterator[str]:
    """Run the service for the length of a block, and return its URL."""
    (directory / "till.py").write_text(APP)
    env = environment(redis_url)

    with running("run", "till:app", "--host", HOST, "--port", "0", cwd=directory, env=env) as process:
        assert process.stderr is not None
        said: list[str] = []

        def find() -> str | None:
            assert process.stderr is not None
            said.append(process.stderr.readline())
            assert said[-1] or process.poll() is None, "".join(said)
            found = re.search(r"serving on (http://\S+),", said[-1])
            return found[1] if found else None

        url = until(find)
        assert url is not None
        yield url


def environment(redis_url: str) -> dict[str, str]:
    """Return the settings of the service."""
    return {"WS_OPS": "true", "WS_OPS_TOKEN": TOKEN, "WS_REDIS_CONFIG__default__url": redis_url}


@contextlib.contextmanager
def answering(replies: Mapping[str, tuple[int, bytes] | None]) -> Iterator[str]:
    """Serve fixed replies by path, None by ending the connection; HEAD is always answered."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reply = replies.get(self.path, (404, b"{}"))

            if reply is None:
                self.close_connection = True
                return

            self._send(*reply)

        def do_HEAD(self) -> None:
            self._send(200, b"")

        def log_message(self, format: str, *args: object) -> None:
            """Print no log line."""

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
