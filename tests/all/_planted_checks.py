"""Tests of the small shop by the plugin's means, once for the sound shop and once for each fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.all._planted_shop import FAULTS, Shop, give_back
from wintersweet._pytest_plugin import SettingsFixture
from ws_core.testing import FaultProxy, cancel_at_every_await, run_virtual
from ws_pool import sql_pool_manager
from ws_pool.redis import RedisPool


@pytest.fixture(params=["", *FAULTS], ids=lambda fault: fault or "sound")
async def shop(request: pytest.FixtureRequest, ws_redis_url: str, ws_sqlite_url: str) -> AsyncIterator[Shop]:
    """Yield the shop with one fault after the other, ten pieces of each item on its shelf."""
    give_back()
    sql_pool_manager.register({"default": {"url": ws_sqlite_url}})

    async with sql_pool_manager, RedisPool(url=ws_redis_url) as redis:
        await sql_pool_manager.execute("CREATE TABLE items (name TEXT PRIMARY KEY, pieces INTEGER)")
        await sql_pool_manager.insert("INSERT INTO items VALUES ('tea', 10), ('honey', 10)")
        shop = Shop(redis, request.param)
        yield shop
        await shop.close()


async def pieces() -> dict[str, int]:
    """Return what is on the shelf."""
    return {row.name: row.pieces for row in await sql_pool_manager.select("SELECT name, pieces FROM items")}


@pytest.mark.ws_no_leaks
async def test_buy(shop: Shop, tmp_path: Path) -> None:
    """A purchase takes one piece, and leaves nothing behind."""
    await shop.buy("tea", tmp_path / "receipt")
    assert await pieces() == {"tea": 9, "honey": 10}


@pytest.mark.ws_rolled_back
async def test_buy_again(shop: Shop, tmp_path: Path) -> None:
    """A sold-out item is refused."""
    await sql_pool_manager.update("UPDATE items SET pieces = 0")

    with pytest.raises(LookupError):
        await shop.buy("tea", tmp_path / "receipt")


async def test_move(shop: Shop) -> None:
    """Wherever a transfer is cancelled, no piece is lost or made."""

    async def all_there() -> None:
        assert sum((await pieces()).values()) == 20

    await cancel_at_every_await(lambda: shop.move(1), check=all_there)


async def test_pack(shop: Shop) -> None:
    """Wherever packing is cancelled, once or twice, the permits come back."""

    def all_back() -> None:
        assert shop.permits == 2

    await asyncio.to_thread(run_virtual, cancel_at_every_await(shop.pack, check=all_back, twice=True))


async def test_ship(shop: Shop) -> None:
    """A post that is closed, or does not answer, is asked less and less, and given up after a minute."""
    asked = 0

    async def closed() -> str:
        nonlocal asked
        asked += 1

        if asked > 1000:
            raise AssertionError("it never gives up")

        raise ConnectionRefusedError

    async def silent_once() -> str:
        nonlocal asked
        asked += 1

        if asked == 1:
            await asyncio.Event().wait()

        return "shipped"

    async def ship() -> None:
        nonlocal asked

        with pytest.raises(TimeoutError):
            await shop.ship(closed)

        assert asked < 10
        asked = 0
        assert await shop.ship(silent_once) == "shipped"

    await asyncio.to_thread(run_virtual, ship())


async def test_pay(shop: Shop) -> None:
    """Whatever is lost on the way to the bank, a payment is made once."""
    paid: set[str] = set()

    async def bank(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            paid.add(line.decode().strip())
            writer.write(b"paid\n")

        writer.close()

    server = await asyncio.start_server(bank, "127.0.0.1", 0)

    async with server, FaultProxy(*server.sockets[0].getsockname(), protocol="raw") as proxy:
        assert await shop.pay(*proxy.address, "one") == "paid"
        proxy.drop_reply()
        assert await shop.pay(*proxy.address, "two") == "paid"
        proxy.drop_request()
        assert await shop.pay(*proxy.address, "three") == "paid"
        proxy.cut()
        assert await shop.pay(*proxy.address, "four") == "paid"
        await shop.close()

    assert paid == {"one", "two", "three", "four"}


async def test_describe(shop: Shop, ws_settings: SettingsFixture) -> None:
    """What is wrong is shown only when DEBUG is on."""
    assert shop.describe(KeyError("tea")) == "sorry"
    ws_settings(DEBUG=True)
    assert shop.describe(KeyError("tea")) == "KeyError('tea')"
