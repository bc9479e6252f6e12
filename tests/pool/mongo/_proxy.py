"""A proxy in front of a MongoDB server that answers chosen commands with errors of its own."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import bson

from tests.pool.http._server import serve_raw

_OP_MSG = 2013
_OURS = 0x7FFFFFFF  # the number of the proxy's own requests
_HEADER = struct.Struct("<iiii")


class FaultyServer:
    """Counts commands, and fails those that have failures left."""

    def __init__(self) -> None:
        self.url = ""
        self.commands: Counter[str] = Counter()
        self.failures: dict[str, list[Mapping[str, Any]]] = {}

    def reply(self, command: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Count a command, and return the error to answer with, if any."""
        name = next(iter(command))
        self.commands[name] += 1
        left = self.failures.get(name)
        return {"ok": 0.0, **left.pop(0)} if left else None


@asynccontextmanager
async def faulty(url: str) -> AsyncIterator[FaultyServer]:
    """Run the proxy in front of the server of a URL."""
    state = FaultyServer()
    writers: list[asyncio.StreamWriter] = []
    parts = urlsplit(url)

    async def backward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while head := await reader.readexactly(_HEADER.size):
                length, _, answered, _ = _HEADER.unpack(head)
                body = await reader.readexactly(length - _HEADER.size)

                if answered != _OURS:
                    writer.write(head + body)

    async def forward(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, downstream: asyncio.StreamWriter
    ) -> None:
        while head := await reader.readexactly(_HEADER.size):
            length, request, _, kind = _HEADER.unpack(head)
            body = await reader.readexactly(length - _HEADER.size)
            command = _command(body) if kind == _OP_MSG else {}
            error = state.reply(command) if command else None

            if error is None:
                downstream.write(head + body)
                continue

            # A server that refuses a commit for good has given the transaction up.
            if "commitTransaction" in command and "Transient" in str(error):
                del command["commitTransaction"]
                downstream.write(_message(_OURS, 0, {"abortTransaction": 1, **command}))

            writer.write(_message(1, request, error))

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        upstream, downstream = await asyncio.open_connection(parts.hostname, parts.port)
        task = asyncio.create_task(backward(upstream, writer))

        try:
            await forward(reader, writer, downstream)
        finally:
            downstream.close()
            await asyncio.wait([task])

            with contextlib.suppress(OSError):
                await downstream.wait_closed()

    async with serve_raw(run) as address:
        state.url = f"mongodb://{urlsplit(address).netloc}{parts.path}?directConnection=true"
        yield state

        # Monitors of a closed client may wait for their answer until their time is over.
        for open_writer in writers:
            open_writer.close()


def _message(number: int, answered: int, document: Mapping[str, Any]) -> bytes:
    body = struct.pack("<IB", 0, 0) + bson.encode(document)
    return _HEADER.pack(_HEADER.size + len(body), number, answered, _OP_MSG) + body


def _command(body: bytes) -> dict[str, Any]:
    """Return the document of a message's first section of kind 0."""
    at = 4

    while body[at]:  # a sequence of documents, such as what is inserted
        at += 1 + int.from_bytes(body[at + 1 : at + 5], "little")

    size = int.from_bytes(body[at + 1 : at + 5], "little")
    return bson.decode(body[at + 1 : at + 1 + size])
