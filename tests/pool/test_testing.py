"""What tests of code on pools use: a Redis of their own, and SQL that is undone."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from ws_pool import atomic, sql_pool_manager
from ws_pool.testing import embedded_redis, rolled_back


def test_embedded_redis() -> None:
    """It serves for the length of the block, and leaves the thread's loop alone."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

    try:
        with embedded_redis() as url:
            path = Path(url.removeprefix("unix://"))

            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                connection.sendall(b"PING\r\n")
                assert connection.recv(16) == b"+PONG\r\n"

        assert not path.exists()
        assert asyncio.get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def notes() -> int:
    """Count the notes."""
    return await sql_pool_manager.count("SELECT * FROM notes")


async def write(text: str) -> None:
    """Write a note."""
    await sql_pool_manager.insert("INSERT INTO notes VALUES (:text)", text=text)


async def test_rolled_back(tmp_path: Path) -> None:
    """What the task does is undone, its own transactions too; an error reaches the test."""
    sql_pool_manager.register({"default": {"url": f"sqlite:///{tmp_path / 'notes.db'}"}})

    async with sql_pool_manager:
        await sql_pool_manager.execute("CREATE TABLE notes (text TEXT)")
        await write("kept")

        async with rolled_back() as client:
            await client.insert("INSERT INTO notes VALUES ('one')")
            await write("two")

            async with atomic():
                await write("three")

            assert await notes() == 4
            assert await asyncio.create_task(notes()) == 1

        assert await notes() == 1

        with pytest.raises(KeyError):
            async with rolled_back("default"):
                await write("four")
                raise KeyError

        assert await notes() == 1
