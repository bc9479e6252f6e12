"""The hook ``setup``, whose errors are the caller's, and pools whose size changes while they are used."""

from __future__ import annotations

import asyncio

import pytest

from tests.pool.core.fakes import FakeConnection, FakeConnector, now
from ws_core.testing import run_virtual
from ws_pool.errors import AcquireTimeout, UsageError
from ws_pool.pool import Pool


class TestSetup:
    """It runs for each holder, before the holder has the connection."""

    def test_each_holder_gets_a_connection_that_is_set_up(self):
        """The first, the next from the idle ones, and one who waited."""
        seen: list[FakeConnection] = []

        async def setup(connection: FakeConnection) -> None:
            await asyncio.sleep(0.01)
            seen.append(connection)

        async def run() -> None:
            async with Pool(FakeConnector(), max_size=1, min_size=0, setup=setup, clock=now) as pool:
                async with pool.lease() as first:
                    assert seen == [first]
                    waiting = asyncio.ensure_future(pool.acquire())
                    await asyncio.sleep(0.1)

                pool.release(await waiting)

                async with pool.lease():
                    assert len(seen) == 3

        run_virtual(run())

    @pytest.mark.parametrize("kind", ["error", "timeout", "hang", "cancel", "sync"])
    def test_one_that_fails_reaches_the_caller_and_costs_the_connection(self, kind: str):
        """Nothing is lost: the next holder has a new connection."""
        broken = True

        async def awaited() -> None:
            if kind == "error":
                raise KeyError(kind)

            if kind == "timeout":  # one of its own, such as that of a statement
                raise TimeoutError(kind)

            await asyncio.sleep(60)

        def setup(_: FakeConnection) -> object:
            if broken and kind == "sync":
                raise KeyError(kind)

            return awaited() if broken else None

        async def run() -> None:
            nonlocal broken
            connector = FakeConnector()

            async with Pool(
                connector, max_size=1, setup=setup, connect_timeout=0.5, min_size=0, clock=now
            ) as pool:
                acquiring = asyncio.ensure_future(pool.acquire())
                await asyncio.sleep(0.4)

                if kind == "cancel":
                    acquiring.cancel()

                expected = {
                    "hang": AcquireTimeout,
                    "timeout": TimeoutError,
                    "cancel": asyncio.CancelledError,
                }.get(kind, KeyError)

                with pytest.raises(expected) as caught:
                    await acquiring

                assert caught.type is expected
                assert pool.statistics().leased == 0
                broken = False

                async with pool.lease() as connection:
                    assert connection.open

                assert (pool.statistics().opened, pool.statistics().closed) == (2, 1)

        run_virtual(run())


class TestResize:
    """`Pool.resize` changes the bounds while the pool is used."""

    def test_a_larger_pool_serves_those_who_wait(self):
        """They get new connections at once."""

        async def run() -> None:
            async with Pool(FakeConnector(), max_size=1, clock=now) as pool:
                first = await pool.acquire()
                waiting = asyncio.gather(pool.acquire(), pool.acquire())
                await asyncio.sleep(0.1)
                assert not waiting.done()
                pool.resize(max_size=3)

                for lease in (first, *await waiting):
                    pool.release(lease)

                assert pool.statistics().max_size == 3
                assert pool.statistics().size == 3

        run_virtual(run())

    def test_a_smaller_pool_closes_what_is_too_much(self):
        """Idle connections at once, others when they come back; those who wait are served meanwhile."""

        async def run() -> None:
            async with Pool(FakeConnector(), min_size=0, max_size=5, clock=now) as pool:
                leases = [await pool.acquire() for _ in range(5)]
                pool.release(leases.pop())
                pool.resize(max_size=2)
                await asyncio.sleep(0.1)
                assert (pool.statistics().size, pool.statistics().idle) == (4, 0)
                waiting = asyncio.ensure_future(pool.acquire())
                await asyncio.sleep(0.1)

                for lease in leases[:3]:
                    pool.release(lease)
                    await asyncio.sleep(0.1)

                last = await waiting
                assert pool.statistics().size == 2
                pool.release(last)
                pool.release(leases[3])
                await asyncio.sleep(0.1)
                assert (pool.statistics().size, pool.statistics().idle) == (2, 2)

        run_virtual(run())

    def test_bounds_that_do_not_fit_are_refused(self):
        """The pool stays as it is."""

        async def run() -> None:
            async with Pool(FakeConnector(), min_size=1, max_size=2, clock=now) as pool:
                for bounds in ({"max_size": 0}, {"min_size": 3}, {"min_size": -1}):
                    with pytest.raises(UsageError):
                        pool.resize(**bounds)

                pool.resize(min_size=2)
                await asyncio.sleep(0.1)
                assert (pool.statistics().size, pool.statistics().max_size) == (2, 2)

        run_virtual(run())
