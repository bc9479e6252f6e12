"""Requests to Redis that many callers make at once, sent together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from redis import exceptions
from redis.asyncio import Redis

from ws_core.sources import client_getter
from ws_tasks._scripts import Script

MOST = 500
"""Requests that are sent together."""

_TIMEOUT = 10.0  # seconds for the replies, for clients that have no timeout of their own


class _Request(NamedTuple):
    command: tuple[object, ...]
    script: Script | None
    reply: asyncio.Future[Any]

    def as_text(self) -> tuple[object, ...]:
        """Return the command with the text of its script."""
        assert self.script is not None
        return ("EVAL", self.script.text, *self.command[2:])


class Requests:
    """
    Sends commands and scripts through a client.

    What is asked for while replies are awaited is sent together afterwards: a hundred jobs that end at
    once cost one trip. Only for redis-py's plain client, whose requests would take a connection each;
    clients of clusters route by keys, and others, such as ws-pool's, send together by themselves.
    """

    def __init__(self, source: object) -> None:
        self._get_client = client_getter(source, "evalsha")
        self._waiting: deque[_Request] = deque()
        self._batch: list[_Request] = []  # on its way
        self._sender: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, source: object) -> Self:
        """Return what sends through the client of a source, which may be that already."""
        return source if isinstance(source, cls) else cls(source)

    @property
    def client(self) -> Any:  # Any: redis-py's clients are untyped
        """The client, which a pool has when it is started."""
        return self._get_client()

    async def run(self, script: Script, keys: Sequence[str], *args: object) -> Any:  # Any: a script's reply
        """Run a script by its digest; a server that does not know it yet is sent the text."""
        client = self.client

        if type(client) is Redis:
            return await self._send("EVALSHA", script.sha, len(keys), *keys, *args, script=script)

        try:
            return await client.evalsha(script.sha, len(keys), *keys, *args)
        except exceptions.NoScriptError:
            return await client.eval(script.text, len(keys), *keys, *args)

    async def get(self, key: str) -> Any:  # Any: bytes or text, as the client decodes
        """Return the value of a key."""
        client = self.client
        return await (self._send("GET", key) if type(client) is Redis else client.get(key))

    async def _send(self, *command: object, script: Script | None = None) -> Any:
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Any] = loop.create_future()
        self._waiting.append(_Request(command, script, reply))

        if self._sender is None:
            self._sender = loop.create_task(self._send_all())
            self._sender.add_done_callback(self._stop)

        return await reply

    async def _send_all(self) -> None:
        while self._waiting:
            self._batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST))]
            await self._send_batch([found for found in self._batch if not found.reply.done()])

        # Here, not in the callback: a caller that has its reply may ask for more before that is called.
        self._sender = None

    def _stop(self, sender: asyncio.Task[None]) -> None:
        """Leave nobody waiting when the loop has ended in the middle, or before the first step."""
        if self._sender is not sender:
            return

        for found in (*self._batch, *self._waiting):
            found.reply.cancel()

        self._batch.clear()
        self._waiting.clear()
        self._sender = None

    async def _send_batch(self, batch: list[_Request]) -> None:
        unknown: list[_Request] = []

        for found, reply in zip(batch, await self._ask([r.command for r in batch]), strict=True):
            if isinstance(reply, exceptions.NoScriptError):
                unknown.append(found)
            else:
                resolve(found.reply, reply)

        if unknown:
            for found, reply in zip(unknown, await self._ask([r.as_text() for r in unknown]), strict=True):
                resolve(found.reply, reply)

    async def _ask(self, commands: list[tuple[object, ...]]) -> list[Any]:
        """Return the reply to each command, or what went wrong."""
        pipeline = self.client.pipeline(transaction=False)

        for command in commands:
            pipeline.execute_command(*command)

        try:
            async with asyncio.timeout(_TIMEOUT):
                replies: list[Any] = await pipeline.execute(raise_on_error=False)
        except Exception as error:  # noqa: BLE001 - for those that wait, who know what to do about it
            replies = [error] * len(commands)

        return replies


def resolve(future: asyncio.Future[Any], reply: Any) -> None:
    """Set a future's result, or its error, unless its caller has given up."""
    if future.done():
        return

    if isinstance(reply, Exception):
        future.set_exception(reply)
    else:
        future.set_result(reply)
