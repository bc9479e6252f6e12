"""The generic pool in virtual time: its end, hooks, warnings and statistics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.pool.core.fakes import FakeConnection, FakeConnector, FakePool, make_pool, now
from ws_core.testing import run_virtual
from ws_pool.errors import ClosedError
from ws_pool.pool import PoolStatistics


class TestClose:
    """The end of a pool."""

    def test_close_waits_for_leases_and_names_those_left(self, caplog: pytest.LogCaptureFixture):
        """A lease that comes back in time is waited for; one that does not is named and terminated."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.01
            pool = make_pool(connector)
            await pool.start()
            lease = await pool.acquire()
            closing = asyncio.create_task(pool.close(timeout=5.0))
            await asyncio.sleep(1)
            assert not closing.done()

            with pytest.raises(ClosedError):
                await pool.acquire()

            start = now()
            pool.release(lease)
            await closing
            assert connector.live == []
            assert now() - start < 0.1, "the close went on waiting for what had come back"

            stuck = make_pool(connector, name="stuck")
            await stuck.start()
            asyncio.current_task().set_name("the holder")  # type: ignore[union-attr]
            lease = await stuck.acquire()
            await asyncio.gather(stuck.close(timeout=1.0), stuck.close())
            assert connector.live == []
            assert "'stuck': closed with connections still in use, held by task 'the holder'" in caplog.text
            stuck.release(lease)

        run_virtual(scenario())

    def test_close_fails_waiters(self):
        """Waiters get a ClosedError at once."""

        async def scenario() -> None:
            pool = make_pool(max_size=1)
            await pool.start()
            lease = await pool.acquire()
            waiting = asyncio.create_task(pool.acquire())
            await asyncio.sleep(0.1)
            closing = asyncio.create_task(pool.close())

            with pytest.raises(ClosedError):
                await waiting

            pool.release(lease)
            await closing

        run_virtual(scenario())

    def test_close_waits_for_no_connect(self):
        """Close cancels a connect that is under way, however long it would take."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.01
            pool = make_pool(connector, connect_timeout=5.0)
            await pool.start()
            lease = await pool.acquire()
            connector.silent = True
            waiting = asyncio.create_task(pool.acquire())
            await asyncio.sleep(0.1)
            assert connector.opening == 1
            start = now()
            closing = asyncio.create_task(pool.close())

            with pytest.raises(ClosedError):
                await waiting

            lease.connection.broken = True
            pool.release(lease)
            await closing
            assert connector.opening == 0
            assert now() == start

        run_virtual(scenario())


class TestWatching:
    """Hooks, warnings and statistics."""

    def test_hooks_are_called_and_may_fail(self, caplog: pytest.LogCaptureFixture):
        """Each hook is called at its turn; one that raises is logged and loses nothing."""

        async def scenario() -> None:
            calls: list[str] = []

            async def opened(conn: FakeConnection) -> None:
                calls.append("open")
                await asyncio.sleep(0.01)
                message = "hook"
                raise ValueError(message)

            def failing(name: str) -> Callable[[FakeConnection], None]:
                def hook(conn: FakeConnection) -> None:
                    calls.append(name)
                    raise ValueError(name)

                return hook

            hooks: Any = {f"on_{name}": failing(name) for name in ("acquire", "release", "close")}
            pool = make_pool(on_open=opened, min_size=0, **hooks)
            await pool.start()

            async with pool.lease():
                pass

            await pool.close()
            assert calls == ["open", "acquire", "release", "close"]
            assert pool.statistics().size == 0

        run_virtual(scenario())
        assert caplog.text.count("hook") >= 4

    def test_a_hook_may_use_the_pool(self):
        """One that expires the pool at each release opens no connection beyond the limit."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.01

            made: list[FakePool] = []

            def expire(_: FakeConnection) -> None:
                for pool in made:
                    pool.expire()

            async with make_pool(connector, max_size=2, min_size=2, on_release=expire) as pool:
                made.append(pool)

                for _ in range(5):
                    lease = await pool.acquire()
                    await asyncio.sleep(0.1)
                    pool.release(lease)
                    assert pool.statistics().size <= 2

            assert connector.most_open <= 2

        run_virtual(scenario())

    def test_a_long_lease_is_warned_about_once_with_its_place(self, caplog: pytest.LogCaptureFixture):
        """A connection held longer than leak_threshold is warned about with the stack of its acquire."""

        async def scenario() -> None:
            async with make_pool(leak_threshold=3.0) as pool:
                lease = await pool.acquire()
                await asyncio.sleep(10)
                pool.release(lease)

        run_virtual(scenario())
        assert caplog.text.count("is held for") == 1
        assert "in scenario" in caplog.text

    def test_a_pool_that_runs_low_warns_once_a_minute(self, caplog: pytest.LogCaptureFixture):
        """When less than a third is free there is a warning, but not with every acquire."""

        async def scenario() -> None:
            async with make_pool(max_size=6) as pool:
                for _ in range(3):
                    leases = [await pool.acquire() for _ in range(6)]

                    for lease in leases:
                        pool.release(lease)

                assert caplog.text.count("is nearly exhausted") == 1
                await asyncio.sleep(61)
                leases = [await pool.acquire() for _ in range(6)]

                for lease in leases:
                    pool.release(lease)

                assert caplog.text.count("is nearly exhausted") == 2

        with caplog.at_level(logging.WARNING):
            run_virtual(scenario())

    def test_statistics_are_a_frozen_snapshot(self):
        """The numbers add up, and have names for OpenTelemetry and for people."""

        async def scenario() -> PoolStatistics:
            async with make_pool(max_size=1) as pool:
                lease = await pool.acquire()
                waiting = asyncio.create_task(pool.acquire())
                await asyncio.sleep(2)
                inside = pool.statistics()
                assert (inside.leased, inside.waiting, inside.idle, inside.size) == (1, 1, 0, 1)
                pool.release(lease)
                pool.release(await waiting)
                assert "1 leased" not in repr(pool)
                return pool.statistics()

        found = run_virtual(scenario())
        assert found.wait_time.count == 3  # one of them at the start
        assert found.wait_time.quantile(0.99) >= 2.0
        assert found.lease_time.total == pytest.approx(2.0, abs=0.1)
        assert found.lease_time.quantile(0.0) == 0.0
        assert found.metrics()["db.client.connection.max"] == 1
        assert found.status()["leased"] == 0

        with pytest.raises(AttributeError):
            found.size = 3  # type: ignore[misc]

    def test_a_connection_that_is_being_reset_is_counted(self):
        """Neither idle nor in use, it exists: a pool that looks empty is not about to open another one."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.02

            async with make_pool(connector, max_size=2) as pool:
                async with pool.lease() as connection:
                    connection.dirty = True

                inside = pool.statistics()
                assert (inside.size, inside.idle, inside.leased, inside.connecting) == (1, 0, 0, 0)
                await asyncio.sleep(1)
                after = pool.statistics()
                assert (after.size, after.idle, after.opened, connector.resets) == (1, 1, 1, 1)

        run_virtual(scenario())

    def test_health_asks_the_server(self):
        """Health is the answer to a ping, with the time it took or the reason it failed."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.02

            async with make_pool(connector) as pool:
                good = await pool.health()
                assert good.ok
                assert good.latency == pytest.approx(0.02)
                connector.down = True
                bad = await pool.health()
                assert not bad.ok
                assert "refused" in bad.detail
                connector.down = False

        run_virtual(scenario())
