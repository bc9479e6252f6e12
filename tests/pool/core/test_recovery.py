"""The generic pool in virtual time: a server that is down, and comes back."""

from __future__ import annotations

import asyncio

import pytest

from tests.pool.core.fakes import FakeConnector, make_pool, now
from ws_core.testing import run_virtual
from ws_pool.errors import UnavailableError


class TestOutage:
    """A server that is down, and comes back."""

    def test_a_pool_on_a_dead_server_fails_fast_and_recovers_by_itself(self):
        """While the server is down acquires fail at once, and within 2 s of its return they succeed."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.01

            async with make_pool(connector, name="shop") as pool:
                connector.down = True

                for conn in connector.live:
                    conn.broken = True

                with pytest.raises(
                    UnavailableError, match=r"'shop' cannot connect to fake://server: connection refused"
                ):
                    await pool.acquire()

                await asyncio.sleep(20)
                start = now()

                with pytest.raises(UnavailableError):
                    await pool.acquire()

                assert now() == start
                assert pool.statistics().down == "connection refused"
                connector.down = False
                await asyncio.sleep(2)

                async with pool.lease():
                    pass

                assert pool.statistics().down == ""

        run_virtual(scenario())

    def test_a_silent_server_is_found_again_within_two_seconds(self):
        """Attempts that hang in a black hole don't keep the pool from noticing that it is over."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.01

            async with make_pool(connector, connect_timeout=5.0) as pool:
                connector.silent = True

                for conn in connector.live:
                    conn.broken = True

                with pytest.raises(UnavailableError, match=r"no answer within 5 s"):
                    await pool.acquire()

                await asyncio.sleep(33.3)
                connector.silent = False
                await asyncio.sleep(2)

                async with pool.lease():
                    pass

        run_virtual(scenario())

    def test_idle_connections_that_fell_silent_cost_one_ping_and_no_more(self):
        """Where a firewall has forgotten all of them, the first user waits for one ping, not for each."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.01

            async with make_pool(connector, min_size=0, max_size=8, ping_timeout=1.0) as pool:
                leases = [await pool.acquire() for _ in range(8)]

                for lease in leases:
                    lease.connection.silent = True
                    pool.release(lease)

                await asyncio.sleep(10)
                start = now()
                lease = await pool.acquire()
                assert now() - start < 1.1
                assert not lease.connection.silent
                await asyncio.sleep(1)
                start = now()
                others = [await pool.acquire() for _ in range(7)]
                assert now() - start < 0.1, "those that had fallen silent are gone by now"

                for other in [lease, *others]:
                    pool.release(other)

        run_virtual(scenario())

    def test_doubt_costs_no_sound_connection(self):
        """When one of many idle ones is dead the others are verified, and kept."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.01

            async with make_pool(connector, min_size=0, max_size=8) as pool:
                leases = [await pool.acquire() for _ in range(8)]
                leases[-1].connection.silent = True  # the one that is tried first

                for lease in leases:
                    pool.release(lease)

                await asyncio.sleep(10)

                async with pool.lease():
                    pass

                await asyncio.sleep(1)
                assert pool.statistics().idle == 8
                assert pool.statistics().closed == 1

        run_virtual(scenario())

    def test_one_loss_in_use_casts_doubt_on_all_others(self):
        """When a leased connection was lost, none that fell silent is leased again; sound ones are."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.01

            async with make_pool(
                connector, min_size=0, max_size=6, ping_after=60.0, is_lost=lambda conn: conn.broken
            ) as pool:
                idle = [await pool.acquire() for _ in range(2)]
                sound, silent, lost = [await pool.acquire() for _ in range(3)]
                kept = sound.connection

                for lease in idle:
                    lease.connection.silent = True
                    pool.release(lease)

                silent.connection.silent = True
                lost.connection.broken = True
                pool.release(lost)
                pool.release(silent)
                pool.release(sound)
                assert pool.statistics().idle == 0, "all of them are being verified"
                leases = [await pool.acquire() for _ in range(6)]
                assert kept in [lease.connection for lease in leases]
                assert not any(lease.connection.silent for lease in leases)

                for lease in leases:
                    pool.release(lease)

                pings = connector.pings
                assert pool.statistics().idle == 6, "they are trusted again"

                async with pool.lease():
                    assert connector.pings == pings

        run_virtual(scenario())

    def test_a_connection_that_its_user_has_broken_casts_no_doubt(self):
        """Where only a cancelled exchange has ended a connection, the others are not asked."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.01

            async with make_pool(
                connector, min_size=0, max_size=3, ping_after=60.0, is_lost=lambda conn: conn.broken
            ) as pool:
                resting, cut = await pool.acquire(), await pool.acquire()
                pool.release(resting)
                cut.connection.midway = True
                pool.release(cut)
                assert pool.statistics().idle == 1
                await asyncio.sleep(1)
                assert connector.pings == 0

        run_virtual(scenario())

    def test_waiters_fail_when_the_last_connection_is_lost(self):
        """A waiter for a connection in use fails when that one breaks while the server is down."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.01

            async with make_pool(connector) as pool:
                lease = await pool.acquire()
                connector.down = True
                waiting = asyncio.create_task(pool.acquire())
                await asyncio.sleep(1)
                assert not waiting.done()
                lease.connection.broken = True
                pool.release(lease)

                with pytest.raises(UnavailableError):
                    await waiting

                connector.down = False

        run_virtual(scenario())

    def test_a_start_without_a_server_leaves_nothing_behind(self):
        """A pool that cannot reach its server does not start, and can be forgotten."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.down = True
            pool = make_pool(connector)

            with pytest.raises(UnavailableError):
                await pool.start()

            assert not pool.ready
            assert len(asyncio.all_tasks()) == 1

        run_virtual(scenario())
