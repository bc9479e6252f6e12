"""The generic pool in virtual time: which connection is used, and for how long."""

from __future__ import annotations

import asyncio

from tests.pool.core.fakes import FakeConnector, make_pool, now
from ws_core.testing import run_virtual


class TestReuse:
    """Which connection is used, and for how long."""

    def test_the_newest_idle_connection_is_reused(self):
        """Reuse is last in, first out, so that spare connections grow old and are closed."""

        async def scenario() -> None:
            async with make_pool(min_size=2) as pool:
                first, second = await pool.acquire(), await pool.acquire()
                one, two = first.connection, second.connection
                pool.release(first)
                pool.release(second)

                async with pool.lease() as conn:
                    assert conn is two

                assert one is not two

        run_virtual(scenario())

    def test_a_connection_is_pinged_only_after_a_rest(self):
        """A connection used just now is not pinged, one that rested longer than ping_after is."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.01

            async with make_pool(connector, ping_after=1.0) as pool:
                async with pool.lease():
                    pass

                await asyncio.sleep(0.5)

                async with pool.lease():
                    pass

                assert connector.pings == 0
                await asyncio.sleep(5)

                async with pool.lease():
                    pass

                assert connector.pings == 1

        run_virtual(scenario())

    def test_a_dead_idle_connection_is_replaced_unseen(self):
        """A connection that died at rest costs its user nothing but the time of a connect."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.01

            async with make_pool(connector) as pool:
                async with pool.lease() as conn:
                    pass

                conn.broken = True

                async with pool.lease() as other:
                    assert other is not conn

        run_virtual(scenario())

    def test_spare_and_old_connections_are_closed(self):
        """Idle ones above min_size go after max_idle, and every one at the end of its life."""

        async def scenario() -> None:
            async with make_pool(max_size=5, max_idle=10.0, max_lifetime=100.0) as pool:
                leases = [await pool.acquire() for _ in range(5)]

                for lease in leases:
                    pool.release(lease)

                await asyncio.sleep(15)
                assert pool.statistics().size == 1
                opened = pool.statistics().opened
                await asyncio.sleep(120)
                assert pool.statistics().opened > opened
                assert pool.statistics().size == 1

        run_virtual(scenario())

    def test_lifetimes_differ_by_chance(self):
        """Connections opened together don't end together."""

        async def scenario() -> None:
            async with make_pool(min_size=20, max_size=20, max_lifetime=1000.0) as pool:
                leases = await asyncio.gather(*(pool.acquire() for _ in range(20)))
                ends = sorted(lease._entry.expires_at - now() for lease in leases)  # type: ignore[union-attr]
                assert 899 <= ends[0] < ends[-1] <= 975
                assert len(set(ends)) == 20

                for lease in leases:
                    pool.release(lease)

        run_virtual(scenario())

    def test_expire_replaces_all_without_breaking_leases(self):
        """After expire() every connection is a new one, those in use as soon as they come back."""

        async def scenario() -> None:
            async with make_pool(min_size=2) as pool:
                await asyncio.sleep(0.1)
                lease = await pool.acquire()
                old = lease.connection
                pool.expire()
                await asyncio.sleep(0.1)
                kept = old.open
                pool.release(lease)
                await asyncio.sleep(0.1)
                assert (kept, old.open) == (True, False)
                assert pool.statistics().size == 2
                assert pool.statistics().closed == 2

        run_virtual(scenario())

    def test_a_dirty_session_is_reset_before_the_next_user(self):
        """A connection left dirty is reset; one that cannot be reset is closed."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.01

            async with make_pool(connector, max_size=1) as pool:
                async with pool.lease() as conn:
                    conn.dirty = True

                async with pool.lease() as again:
                    assert again is conn
                    assert not again.dirty

                assert connector.resets == 1

                async with pool.lease() as conn:
                    conn.dirty = True
                    connector.reset_hangs = True

                async with pool.lease() as other:
                    assert other is not conn

        run_virtual(scenario())
