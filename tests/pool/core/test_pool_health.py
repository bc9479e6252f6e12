"""The generic pool in virtual time: health, statistics and warnings in unusual states."""

from __future__ import annotations

import asyncio

import pytest

from tests.pool.core.fakes import FakeConnector, make_pool
from ws_core.testing import run_virtual
from ws_pool.errors import UnavailableError


def test_a_busy_pool_is_healthy():
    """When all connections are in use the pool is healthy, and the detail says that it is busy."""

    async def scenario() -> None:
        connector = FakeConnector()

        async with make_pool(connector, max_size=1) as pool, pool.lease():
            health = await pool.health(timeout=1)
            assert health.ok
            assert "longest holders" in health.detail
            assert pool.full
            connector.down = True

        assert not pool.full

    run_virtual(scenario())


def test_a_server_that_hangs_is_not_healthy():
    """A ping without an answer makes the pool unhealthy, and is not taken for a busy pool."""

    async def scenario() -> None:
        connector = FakeConnector()

        async with make_pool(connector, max_size=1) as pool:
            connector.delay = lambda: 100.0
            assert not (await pool.health(timeout=1)).ok
            connector.delay = lambda: 0.0

    run_virtual(scenario())


def test_times_stay_counted_when_leases_are_ended_by_force():
    """A lease that close() terminates was waited for and used like any other."""

    async def scenario() -> None:
        pool = make_pool(max_size=2)
        await pool.start()
        lease = await pool.acquire()
        await asyncio.sleep(3)
        await pool.close(timeout=0)
        found = pool.statistics()
        assert found.wait_time.count == found.lease_time.count == 2  # one at the start
        assert min(found.wait_time.counts) == 0
        assert found.lease_time.total == pytest.approx(3, abs=0.1)
        pool.release(lease)
        assert pool.statistics().lease_time.count == 2

    run_virtual(scenario())


def test_metrics_follow_the_conventions():
    """The state is an attribute, and times of connecting are there."""

    async def scenario() -> None:
        connector = FakeConnector()
        connector.delay = lambda: 0.25

        async with make_pool(connector, max_size=3) as pool, pool.lease():
            metrics = pool.statistics().metrics()
            count = 'db.client.connection.count{db.client.connection.state="%s"}'
            assert (metrics[count % "used"], metrics[count % "idle"]) == (1, 0)
            assert metrics["db.client.connection.idle.max"] == 3
            assert metrics["db.client.connection.create_time.count"] == 1
            assert metrics["db.client.connection.create_time.sum"] == pytest.approx(0.25)

    run_virtual(scenario())


def test_one_connect_at_a_time_also_while_the_server_is_down():
    """max_connecting=1 is kept in an outage, and a server that was silent is still found within 2 s."""

    async def scenario() -> None:
        connector = FakeConnector()
        async with make_pool(connector, max_connecting=1, max_size=5) as pool:
            connector.silent = True

            for conn in connector.live:
                conn.broken = True

            with pytest.raises(UnavailableError):
                await pool.acquire()

            assert pool.statistics().down
            await asyncio.sleep(20.3)
            connector.silent = False
            await asyncio.sleep(2)

            async with pool.lease():
                assert not pool.down

        assert connector.most_opening == 1

    run_virtual(scenario())


@pytest.mark.parametrize(("refused", "most", "least"), [(True, 20, 5), (False, 400, 150)])
def test_a_refused_login_is_tried_ever_less_often(refused: bool, most: int, least: int):
    """A wrong password is tried every 30 s in the end, a server that is down twice a second."""

    async def scenario() -> None:
        connector = FakeConnector()

        async with make_pool(connector, min_size=0, is_refusal=lambda _: refused) as pool:
            connector.down = True

            with pytest.raises(UnavailableError):
                await pool.acquire()

            await asyncio.sleep(120)
            assert least <= pool.statistics().failures <= most
            connector.down = False
            await asyncio.sleep(31)
            assert not pool.down

    run_virtual(scenario())
