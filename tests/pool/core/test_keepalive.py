"""The generic pool in virtual time: idle connections are pinged before anybody forgets them."""

from __future__ import annotations

import asyncio

import pytest

from tests.pool.core.fakes import FakeConnection, FakeConnector, make_pool, now
from ws_core.testing import run_virtual


def quick() -> FakeConnector:
    """A connector whose server answers within a hundredth of a second."""
    connector = FakeConnector()
    connector.delay = lambda: 0.01
    return connector


@pytest.mark.parametrize(("keepalive", "least", "most"), [(None, 0, 0), (10.0, 4, 6)])
def test_idle_connections_are_pinged(keepalive: float | None, least: int, most: int):
    """Without a use, a connection is pinged about once in the period, and never without the option."""

    async def scenario() -> None:
        connector = quick()

        async with make_pool(connector, keepalive=keepalive):
            before = connector.pings
            await asyncio.sleep(60)
            assert least <= connector.pings - before <= most

    run_virtual(scenario())


def test_a_used_connection_is_not_pinged():
    """What is used more often than the period is known to be alive."""

    async def scenario() -> None:
        connector = quick()

        async with make_pool(connector, keepalive=10.0, ping_after=60.0) as pool:
            before = connector.pings

            for _ in range(30):
                await asyncio.sleep(2)

                async with pool.lease():
                    pass

            assert connector.pings == before

    run_virtual(scenario())


def test_a_dead_connection_is_replaced_before_it_is_needed():
    """A connection that died in silence is found by its ping; the next acquire does not meet it."""

    async def scenario() -> None:
        connector = quick()

        async with make_pool(connector, keepalive=5.0) as pool:
            connector.connections[0].broken = True
            await asyncio.sleep(8)
            assert (pool.statistics().opened, pool.statistics().size) == (2, 1)
            start = now()

            async with pool.lease() as conn:
                assert conn is connector.connections[1]
                assert now() - start < 0.05

    run_virtual(scenario())


def test_pings_keep_no_spare_connection_open():
    """A connection above min_size is closed after max_idle, pinged or not."""

    async def scenario() -> None:
        connector = quick()

        async with make_pool(connector, min_size=1, max_size=5, keepalive=5.0, max_idle=30.0) as pool:
            leases = [await pool.acquire() for _ in range(5)]

            for lease in leases:
                pool.release(lease)

            await asyncio.sleep(40)
            assert pool.statistics().size == 1

    run_virtual(scenario())


def test_a_waiter_is_served_during_pings():
    """While all idle connections are pinged by a slow server, an acquire gets the first that answers."""

    async def scenario() -> None:
        connector = quick()

        async with make_pool(connector, min_size=2, max_size=2, keepalive=5.0, ping_timeout=2.0) as pool:
            await asyncio.sleep(4.5)
            connector.delay = lambda: 0.5
            await asyncio.sleep(1.7)
            assert pool.statistics().idle == 0

            async with pool.lease(timeout=1.0) as conn:
                assert isinstance(conn, FakeConnection)

            await asyncio.sleep(2)
            assert (pool.statistics().idle, pool.statistics().size) == (2, 2)

    run_virtual(scenario())


def test_close_during_pings_leaves_nothing():
    """A close while pings are under way ends them and closes their connections."""

    async def scenario() -> None:
        connector = quick()
        pool = make_pool(connector, min_size=2, max_size=2, keepalive=5.0)
        await pool.start()
        await asyncio.sleep(4.5)
        connector.delay = lambda: 0.5
        await asyncio.sleep(1.7)
        await pool.close(timeout=1.0)
        assert not connector.live
        assert pool.statistics().size == 0

    run_virtual(scenario())
