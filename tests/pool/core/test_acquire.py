"""The generic pool in virtual time: acquires, their order and their timeouts."""

from __future__ import annotations

import asyncio

import pytest

from tests.pool.core.fakes import FakeConnection, FakeConnector, make_pool, now
from ws_core.testing import run_virtual
from ws_pool._core.pool_state import PoolState, Waiter
from ws_pool.errors import AcquireTimeout
from ws_pool.pool import Connector


class TestWaiting:
    """The order in which callers get connections."""

    def test_waiters_are_served_in_their_order(self):
        """A connection goes to the task that waits longest, never to a newcomer."""

        async def scenario() -> None:
            order: list[int] = []

            async with make_pool(max_size=1) as pool:
                held = await pool.acquire()

                async def user(number: int) -> None:
                    async with pool.lease():
                        order.append(number)
                        await asyncio.sleep(0.001)

                tasks = [asyncio.create_task(user(number)) for number in range(5)]
                await asyncio.sleep(0.01)
                pool.release(held)
                newcomer = asyncio.create_task(user(99))
                await asyncio.gather(*tasks, newcomer)

            assert order == [0, 1, 2, 3, 4, 99]

        run_virtual(scenario())

    def test_a_returned_connection_beats_a_slow_connect(self):
        """A waiter takes whichever comes first, a returned connection or a new one."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.01

            async with make_pool(connector) as pool:
                held = await pool.acquire()
                connector.delay = lambda: 4.0
                start = now()
                waiting = asyncio.create_task(pool.acquire())
                await asyncio.sleep(0.1)
                pool.release(held)
                lease = await waiting
                assert now() - start < 0.2
                pool.release(lease)

        run_virtual(scenario())

    def test_connects_that_nobody_needs_are_elided(self):
        """With one waiter after the other, not more connects begin than there are waiters."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.01

            async with make_pool(connector, max_size=50, min_size=0) as pool:
                for _ in range(20):
                    async with pool.lease():
                        pass

                assert len(connector.connections) == 1

        run_virtual(scenario())

    def test_only_so_many_connects_at_once(self):
        """At most max_connecting connections are opened at the same time."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.01

            async with make_pool(connector, max_size=20, min_size=20, max_connecting=3) as pool:
                leases = await asyncio.gather(*(pool.acquire() for _ in range(20)))
                assert connector.most_opening == 3

                for lease in leases:
                    pool.release(lease)

        run_virtual(scenario())

    def test_a_timeout_names_the_pool_and_the_longest_holders(self):
        """The timeout error names the pool, its size, the number of waiters and the holders."""

        async def scenario() -> None:
            async with make_pool(name="orders", max_size=1, acquire_timeout=3.0) as pool:
                lease = await pool.acquire()
                start = now()

                with pytest.raises(
                    AcquireTimeout, match=r"'orders'.*within 3 s.*size 1 of 1.*longest holders: task"
                ) as caught:
                    await pool.acquire()

                assert now() - start == pytest.approx(3.0)
                assert isinstance(caught.value, TimeoutError)
                assert pool.statistics().timeouts == 1

                with pytest.raises(AcquireTimeout, match=r"within 0.5 s"):
                    await pool.acquire(timeout=0.5)

                pool.release(lease)

        run_virtual(scenario())

    def test_each_waiter_has_its_own_time(self):
        """A short wait behind a long one ends first."""

        async def scenario() -> None:
            async with make_pool(max_size=1) as pool:
                lease = await pool.acquire()
                ends: dict[float, float] = {}

                async def wait(seconds: float) -> None:
                    start = now()

                    with pytest.raises(AcquireTimeout):
                        await pool.acquire(timeout=seconds)

                    ends[seconds] = now() - start

                await asyncio.gather(wait(5.0), wait(1.0), wait(3.0))
                assert ends == {key: pytest.approx(key) for key in (1.0, 3.0, 5.0)}
                pool.release(lease)

        run_virtual(scenario())


def test_a_fake_connector_is_a_connector():
    """The protocol that the fake fulfils is the one that drivers fulfil."""
    connector: Connector[FakeConnection] = FakeConnector()
    assert str(connector) == "fake://server"


def test_a_long_queue_is_not_searched_for_each_expired_waiter(monkeypatch: pytest.MonkeyPatch):
    """Thousands of waiters that expire one after the other fail in time, a few at a time."""
    looks = 0
    original = PoolState.expired_waiters

    def counting(self: PoolState[FakeConnection], time: float) -> list[Waiter[FakeConnection]]:
        nonlocal looks
        looks += 1
        return original(self, time)

    monkeypatch.setattr(PoolState, "expired_waiters", counting)

    async def scenario() -> None:
        async with make_pool(max_size=1) as pool:
            held = await pool.acquire()

            async def user(number: int) -> float:
                limit = 1.0 + number * 1e-5

                with pytest.raises(AcquireTimeout):
                    await pool.acquire(timeout=limit)

                return now() - start - limit

            start = now()
            delays = await asyncio.gather(*(user(number) for number in range(3000)))
            assert 0 <= max(delays) < 0.01
            pool.release(held)

    run_virtual(scenario())
    assert 3 <= looks < 60


@pytest.mark.parametrize("most", [0, 2])
def test_no_more_tasks_wait_than_are_allowed(most: int):
    """With max_waiting one task more fails at once; when the queue is shorter again, the next one waits."""

    async def scenario() -> None:
        async with make_pool(max_size=1, max_waiting=most) as pool:
            held = await pool.acquire()
            waiting = [asyncio.create_task(pool.acquire()) for _ in range(most)]
            await asyncio.sleep(0)
            start = now()

            with pytest.raises(
                AcquireTimeout, match=rf"max_waiting allows .*{most} waiting; longest holders"
            ):
                await pool.acquire()

            assert now() == start
            assert pool.statistics().timeouts == 1
            pool.release(held)

            for task in waiting:
                pool.release(await task)

            pool.release(await pool.acquire())

    run_virtual(scenario())


def test_a_cancelled_waiter_makes_room():
    """A task that is cancelled in the queue counts no longer against max_waiting."""

    async def scenario() -> None:
        async with make_pool(max_size=1, max_waiting=1) as pool:
            held = await pool.acquire()
            first = asyncio.create_task(pool.acquire())
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait([first])
            second = asyncio.create_task(pool.acquire())
            await asyncio.sleep(0)
            pool.release(held)
            pool.release(await second)

    run_virtual(scenario())
