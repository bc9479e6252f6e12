"""LISTEN and NOTIFY: messages come in order, and what an outage may have hidden is reported."""

from __future__ import annotations

import asyncio

import pytest

from tests.pool.sql._postgres import over
from tests.servers import StartServer
from tools.servers import PostgresServer
from ws_pool import PostgresPool
from ws_pool._sql.postgres import notifications
from ws_pool.errors import ClosedError, UnavailableError, UsageError
from ws_pool.postgres import Notification, NotificationGap


async def sender(pool: PostgresPool) -> int:
    """Return the process of the pool's one connection."""
    return int((await pool.find("SELECT pg_backend_pid() AS pid")).pid)


async def test_messages_come_in_order(driver_url: str) -> None:
    """Messages of all channels come in the order of their commits, with payload and sender."""
    async with PostgresPool(driver_url) as pool, pool.listen("a", "Big B") as notes:
        for n in range(100):
            await pool.execute("SELECT pg_notify($1, $2)", "a" if n % 2 else "Big B", str(n))

        found = [await anext(notes) for _ in range(100)]

    assert [note.payload for note in found if isinstance(note, Notification)] == [str(n) for n in range(100)]
    assert {note.channel for note in found if isinstance(note, Notification)} == {"a", "Big B"}


async def test_a_restart_of_the_server(driver: str, start_server: StartServer) -> None:
    """After a kill and restart the gap is reported with its length, and nothing is lost after it."""
    server = await asyncio.to_thread(start_server, PostgresServer)

    async with PostgresPool(over(driver, server.url)) as pool, pool.listen("news") as notes:
        await pool.execute("NOTIFY news, 'before'")
        assert (await anext(notes)) == Notification("news", "before", pid=await sender(pool))
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(server.start)
        gap = await anext(notes)
        assert isinstance(gap, NotificationGap)
        assert gap.seconds >= 0.5

        await asyncio.to_thread(server.execute, *(f"NOTIFY news, '{n}'" for n in range(20)), database="test")
        after = [await anext(notes) for _ in range(20)]

    assert [note.payload for note in after if isinstance(note, Notification)] == [str(n) for n in range(20)]


async def test_a_server_that_stands_still(
    driver: str, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection over which nothing comes any more is given up, and the gap reported."""
    monkeypatch.setattr(notifications, "_PING_EVERY", 0.3)
    server = await asyncio.to_thread(start_server, PostgresServer)

    async with (
        PostgresPool(over(driver, server.url), connect_timeout=1) as pool,
        pool.listen("news") as notes,
    ):
        await asyncio.to_thread(server.pause)
        waiting = asyncio.ensure_future(anext(notes))
        await asyncio.sleep(1)
        await asyncio.to_thread(server.resume)
        assert isinstance(await waiting, NotificationGap)


async def test_a_late_reader(driver_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that a late reader makes impossible to keep are counted, behind those that were kept."""
    monkeypatch.setattr(notifications, "_MOST", 10)

    async with PostgresPool(driver_url) as pool, pool.listen("news") as notes:
        await pool.execute("SELECT pg_notify('news', n::text) FROM generate_series(1, 25) n")
        await pool.execute("SELECT 1")

        async with asyncio.timeout(20):
            while notes._dropped < 15:
                await asyncio.sleep(0.01)

        found = [await anext(notes) for _ in range(11)]
        await pool.execute("NOTIFY news, 'next'")
        found.append(await anext(notes))

    assert [note.payload for note in found if isinstance(note, Notification)] == [
        *map(str, range(1, 11)),
        "next",
    ]
    assert found[10] == NotificationGap(0.0, dropped=15)


async def test_misuse(driver: str, driver_url: str, postgres_server: PostgresServer) -> None:
    """No channel, an ended block and a server that is not there are errors that say so."""
    pool = PostgresPool(driver_url)

    with pytest.raises(UsageError, match="needs the name of a channel"):
        pool.listen()

    for wrong in ("", 5, None):
        with pytest.raises(UsageError, match="the name of a channel is a string"):
            pool.listen("a", wrong)  # type: ignore[arg-type]  # so it is wrong

    async with pool.listen("a") as notes:
        pass

    with pytest.raises(ClosedError, match="has ended"):
        await anext(notes)

    with pytest.raises(UnavailableError, match="cannot reach"):
        async with PostgresPool(over(driver, "postgresql://postgres@127.0.0.1:1/test")).listen("a"):
            pass

    assert postgres_server.running
