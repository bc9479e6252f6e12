"""Conversations for tests of WebSockets: handlers, served managers, and peers that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import WebSocket

from ws_web import MessageHandler, SocketLimitError, create_app
from ws_web.testing import AppClient


class Recorder(MessageHandler):
    """Note what happens, and answer on request."""

    def __init__(self, manager: Any = None) -> None:
        self.manager = manager
        self.heard: list[Any] = []
        self.hellos: list[tuple[Any, int]] = []

    async def hello(self, key: Any, ws: Any, count: int) -> None:
        """Greet at the start, as a client would like."""
        self.hellos.append((key, count))

        if count == 0:
            await ws.send_text("hello")

    async def on_message(self, key: Any, ws: Any, message: Any) -> None:
        """Echo through the manager; fail when asked to."""
        self.heard.append((key, message))

        if message == "fail":
            raise ValueError("asked to")

        if self.manager is not None:
            await self.manager.send_message(key, f"{key}: {message}")


def served(manager: Any, handler: Any = None, receive: str = "receive_text") -> Any:
    """Return an application whose sockets talk through a manager."""
    app = create_app()
    handler = handler or Recorder(manager)

    @app.websocket("/{key}")
    async def endpoint(ws: WebSocket, key: str) -> None:
        try:
            await manager.append(key, ws, handler)
        except SocketLimitError:
            await ws.close(1013)
            return

        await manager.handle_message(key, receive)

    return AppClient(app)


class SilentSocket:
    """A WebSocket whose peer reads nothing: sending blocks for ever."""

    client_state = application_state = None

    def __init__(self, *, stuck: bool = True, error: Any = None) -> None:
        self.sent: list[Any] = []
        self.closed = None
        self.accepted = False
        self.stuck = stuck
        self.error = error
        self.never = asyncio.Event()

    async def accept(self) -> None:
        """Accept."""
        self.accepted = True

    async def receive(self) -> Any:
        """Stay silent."""
        await self.never.wait()

    async def send(self, message: Any) -> None:
        """Block, raise or note."""
        if self.error is not None:
            raise self.error

        if self.stuck:
            await self.never.wait()

        self.sent.append(message)

    async def close(self, code: Any, reason: Any) -> None:
        """Take the close frame."""
        self.closed = code


StuckSocket: Any = SilentSocket  # it stands in for a WebSocket, whose type it does not have


@asynccontextmanager
async def conversing(manager: Any, key: Any, ws: Any, handler: Any = None) -> AsyncIterator[Any]:
    """Run a conversation over a socket of the test's own."""
    await manager.append(key, ws, handler or MessageHandler())
    task = asyncio.create_task(manager.handle_message(key))
    await settle()

    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settle() -> None:
    """Let every task that can run, run."""
    for _ in range(20):
        await asyncio.sleep(0)
