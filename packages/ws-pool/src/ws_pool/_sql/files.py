"""What a client loads rows from and writes them to: paths, bytes, and objects that read or take bytes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from os import PathLike
from typing import Any

from ws_pool.errors import UsageError

Bytes = bytes | bytearray | memoryview
Source = str | PathLike[str] | Bytes | Iterable[Bytes] | AsyncIterable[Bytes] | Any  # Any: it has read()
Write = Callable[[bytes], Awaitable[None]]
Output = str | PathLike[str] | Write | Any  # Any: it has write()

_CHUNK = 1 << 16  # bytes that are read at once


@asynccontextmanager
async def reading(source: Any, verb: str) -> AsyncIterator[AsyncIterator[bytes]]:
    """Open a source, before anything is sent, and yield its chunks; ``verb`` is whose source it is."""
    if isinstance(source, str | PathLike):
        file = await asyncio.to_thread(open, source, "rb")

        try:
            yield _checked(_read(file.read), verb)
        finally:
            file.close()
    elif isinstance(source, Bytes):
        yield _checked(_several((source,)), verb)
    elif callable(getattr(source, "read", None)):
        yield _checked(_read(source.read), verb)
    elif isinstance(source, AsyncIterable):
        yield _checked(source, verb)
    elif isinstance(source, Iterable):
        yield _checked(_several(source), verb)
    else:
        kind = type(source).__name__
        message = f"{verb}() reads a path, bytes, an object with read() or an iterable, not a {kind}"
        raise UsageError(message)


@asynccontextmanager
async def writing(output: Any, verb: str) -> AsyncIterator[Write]:
    """Yield what writes to an output; a file is opened when there is something to write, or at the end."""
    if isinstance(output, str | PathLike):
        file: Any = None

        async def write(data: bytes) -> None:
            nonlocal file

            if file is None:  # not before: a statement that fails at once leaves it as it was
                file = await asyncio.to_thread(open, output, "wb")

            await asyncio.to_thread(file.write, data)

        try:
            yield write
            await write(b"")
        finally:
            if file is not None:
                await asyncio.to_thread(file.close)

        return

    take = output if callable(output) else getattr(output, "write", None)

    if take is None:
        message = (
            f"{verb}() writes to a path, an object with write() or a function, not a {type(output).__name__}"
        )
        raise UsageError(message)

    async def hand_over(data: bytes) -> None:
        done = take(data)

        if inspect.isawaitable(done):
            await done

    yield hand_over


async def _read(read: Callable[[int], Any]) -> AsyncIterator[Any]:
    """Read chunks, in a thread when that blocks."""
    blocks = not inspect.iscoroutinefunction(read)

    while chunk := await (asyncio.to_thread(read, _CHUNK) if blocks else read(_CHUNK)):
        yield chunk


async def _several(chunks: Iterable[Any]) -> AsyncIterator[Any]:
    for chunk in chunks:
        yield chunk


async def _checked(chunks: AsyncIterable[Any], verb: str) -> AsyncIterator[bytes]:
    """Yield pieces of a size that any server takes, and none that is empty: that would be the end."""
    async for chunk in chunks:
        if not isinstance(chunk, Bytes):
            message = f"{verb}() sends bytes, not {type(chunk).__name__}: open files in the mode 'rb'"
            raise UsageError(message)

        whole = memoryview(chunk).cast("B")

        for start in range(0, len(whole), _CHUNK):
            yield bytes(whole[start : start + _CHUNK])
