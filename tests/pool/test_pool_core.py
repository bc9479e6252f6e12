"""The generic pool, with a fake driver in virtual time."""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from tests.pool.fakes import FakeConnection, FakeConnector, now, run_virtual
from ws_pool.context import TaskBinding
from ws_pool.errors import AcquireTimeout, ClosedError, NotReadyError, UnavailableError, UsageError
from ws_pool.pool import Connector, Pool, PoolStatistics

FakePool = Pool[FakeConnection]


def make(connector: FakeConnector | None = None, **options: Any) -> FakePool:
    """Make a pool on the loop's own time."""
    if connector is None:
        connector = FakeConnector()
        connector.delay = lambda: 0.01

    return Pool(connector, **{"clock": now, "max_size": 2, **options})


class TestWaiting:
    """Who gets a connection, and when."""

    def test_waiters_are_served_in_their_order(self):
        """A connection goes to the task that waits longest, never to a newcomer."""

        async def scenario() -> None:
            order: list[int] = []

            async with make(max_size=1) as pool:
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

            async with make(connector) as pool:
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

            async with make(connector, max_size=50, min_size=0) as pool:
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

            async with make(connector, max_size=20, min_size=20, max_connecting=3) as pool:
                leases = await asyncio.gather(*(pool.acquire() for _ in range(20)))
                assert connector.most_opening == 3

                for lease in leases:
                    pool.release(lease)

        run_virtual(scenario())

    def test_a_timeout_names_the_pool_and_the_longest_holders(self):
        """Who waits too long is told the pool, its size, the waiters and who holds the connections."""

        async def scenario() -> None:
            async with make(name="orders", max_size=1, acquire_timeout=3.0) as pool:
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
            async with make(max_size=1) as pool:
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


class TestReuse:
    """Which connection is used, and for how long."""

    def test_the_newest_idle_connection_is_reused(self):
        """Reuse is last in, first out, so that spare connections grow old and are closed."""

        async def scenario() -> None:
            async with make(min_size=2) as pool:
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

            async with make(connector, ping_after=1.0) as pool:
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

            async with make(connector) as pool:
                async with pool.lease() as conn:
                    pass

                conn.broken = True

                async with pool.lease() as other:
                    assert other is not conn

        run_virtual(scenario())

    def test_spare_and_old_connections_are_closed(self):
        """Idle ones above min_size go after max_idle, and every one at the end of its life."""

        async def scenario() -> None:
            async with make(max_size=5, max_idle=10.0, max_lifetime=100.0) as pool:
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
            async with make(min_size=20, max_size=20, max_lifetime=1000.0) as pool:
                leases = await asyncio.gather(*(pool.acquire() for _ in range(20)))
                ends = sorted(lease._slot.expires_at - now() for lease in leases)  # type: ignore[union-attr]
                assert 899 <= ends[0] < ends[-1] <= 975
                assert len(set(ends)) == 20

                for lease in leases:
                    pool.release(lease)

        run_virtual(scenario())

    def test_expire_replaces_all_without_breaking_leases(self):
        """After expire() every connection is a new one, those in use as soon as they come back."""

        async def scenario() -> None:
            async with make(min_size=2) as pool:
                await asyncio.sleep(0.1)
                lease = await pool.acquire()
                old = lease.connection
                pool.expire()
                await asyncio.sleep(0.1)
                assert old.open
                pool.release(lease)
                await asyncio.sleep(0.1)
                assert not old.open
                assert pool.statistics().size == 2
                assert pool.statistics().closed == 2

        run_virtual(scenario())

    def test_a_dirty_session_is_reset_before_the_next_user(self):
        """A connection left dirty is reset; one that cannot be reset is closed."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.01

            async with make(connector, max_size=1) as pool:
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


class TestOutage:
    """A server that is down, and comes back."""

    def test_a_pool_on_a_dead_server_fails_fast_and_recovers_by_itself(self):
        """While the server is down acquires fail at once, and within 2 s of its return they succeed."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.01

            async with make(connector, name="shop") as pool:
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

            async with make(connector, connect_timeout=5.0) as pool:
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

    def test_waiters_are_told_when_the_last_hope_is_gone(self):
        """Who waits for a connection in use while the server is down hears of it when that one breaks."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.01

            async with make(connector) as pool:
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
            pool = make(connector)

            with pytest.raises(UnavailableError):
                await pool.start()

            assert not pool.ready
            assert len(asyncio.all_tasks()) == 1

        run_virtual(scenario())


class TestMisuse:
    """What tells a user what is wrong."""

    def test_a_lease_is_dead_after_its_release(self):
        """The handle of a released connection says so, and cannot be released twice."""

        async def scenario() -> None:
            async with make() as pool, make(name="other") as other:
                lease = await pool.acquire()

                with pytest.raises(UsageError, match="not the pool's own"):
                    other.release(lease)

                pool.release(lease)

                with pytest.raises(UsageError, match="was released"):
                    _ = lease.connection

                with pytest.raises(UsageError, match="released before"):
                    pool.release(lease)

                assert "released" in repr(lease)

        run_virtual(scenario())

    def test_a_pool_that_is_not_open_says_why(self):
        """Before the start and after the close each use is an error that says so."""

        async def scenario() -> None:
            pool = make(name="p")

            with pytest.raises(NotReadyError, match="'p' is not started"):
                await pool.acquire()

            assert not (await pool.health()).ok
            await pool.start()

            with pytest.raises(UsageError, match="started before"):
                await pool.start()

            await pool.close()

            with pytest.raises(ClosedError, match="'p' is closed"):
                await pool.acquire()

            await pool.close()
            never = make()
            await never.close()

        run_virtual(scenario())

    def test_another_loop_is_refused(self):
        """A pool used from another event loop raises an error instead of hanging."""
        pool = make(clock=None)
        home = asyncio.new_event_loop()
        home.run_until_complete(pool.start())

        with pytest.raises(UsageError, match="another event loop"):
            asyncio.run(pool.acquire())

        with pytest.raises(UsageError, match="another event loop"):
            asyncio.run(pool.close())

        home.run_until_complete(pool.close())
        home.close()

    def test_a_pool_can_be_closed_after_its_loop(self):
        """A pool whose loop is gone closes its connections at once."""
        connector = FakeConnector()
        connector.delay = lambda: 0.0
        pool = make(connector, clock=None)
        home = asyncio.new_event_loop()
        home.run_until_complete(pool.start())
        home.close()
        asyncio.run(pool.close())
        assert connector.live == []

    def test_a_forked_child_is_refused(self):
        """In a child process the parent's connections are not used."""

        async def scenario() -> int:
            pool = make(clock=None)
            await pool.start()
            child = os.fork()

            if child == 0:
                code = 1

                try:
                    await pool.acquire()
                except UsageError as error:
                    code = 0 if "forked" in str(error) else 2
                finally:
                    os._exit(code)

            _, status = os.waitpid(child, 0)  # noqa: ASYNC222 - the child ends at once
            await pool.close()
            return os.waitstatus_to_exitcode(status)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside other threads
            assert asyncio.run(scenario()) == 0

    def test_impossible_sizes_are_refused(self):
        """A pool whose bounds don't fit together cannot be made."""
        for wrong in (
            {"min_size": 3, "max_size": 2},
            {"max_size": 0},
            {"min_size": -1},
            {"max_connecting": 0},
        ):
            with pytest.raises(UsageError, match="0 <= min_size <= max_size"):
                make(**wrong)

    def test_a_dropped_lease_is_warned_about_and_its_connection_replaced(self):
        """A lease that is garbage gives a ResourceWarning with the place, and the pool heals."""

        async def scenario() -> None:
            async with make(max_size=1, leak_threshold=100.0) as pool:
                lease: Any = await pool.acquire()

                with pytest.warns(ResourceWarning, match="(?s)without being released.*scenario"):
                    lease = None

                async with pool.lease(timeout=1.0):
                    assert lease is None

        run_virtual(scenario())

    def test_a_forgotten_pool_is_warned_about(self):
        """A pool that is garbage while open gives a ResourceWarning."""

        async def scenario() -> None:
            pool = make(clock=None)
            await pool.start()
            upkeep = pool._upkeep

            with pytest.warns(ResourceWarning, match="was not closed"):
                pool.__del__()

            await pool.close()
            assert upkeep.state.name == "CLOSED"

        asyncio.run(scenario())


class TestClose:
    """The end of a pool."""

    def test_close_waits_for_leases_and_names_those_left(self, caplog: pytest.LogCaptureFixture):
        """A lease that comes back in time is waited for; one that does not is named and terminated."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.01
            pool = make(connector)
            await pool.start()
            lease = await pool.acquire()
            closing = asyncio.create_task(pool.close(timeout=5.0))
            await asyncio.sleep(1)
            assert not closing.done()

            with pytest.raises(ClosedError):
                await pool.acquire()

            pool.release(lease)
            await closing
            assert connector.live == []

            stuck = make(connector, name="stuck")
            await stuck.start()
            asyncio.current_task().set_name("the holder")  # type: ignore[union-attr]
            lease = await stuck.acquire()
            await asyncio.gather(stuck.close(timeout=1.0), stuck.close())
            assert connector.live == []
            assert "'stuck': closed with connections still in use, held by task 'the holder'" in caplog.text
            stuck.release(lease)

        run_virtual(scenario())

    def test_close_tells_those_who_wait(self):
        """Waiters get a ClosedError at once."""

        async def scenario() -> None:
            pool = make(max_size=1)
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
            pool = make(on_open=opened, min_size=0, **hooks)
            await pool.start()

            async with pool.lease():
                pass

            await pool.close()
            assert calls == ["open", "acquire", "release", "close"]
            assert pool.statistics().size == 0

        run_virtual(scenario())
        assert caplog.text.count("hook") >= 4

    def test_a_long_lease_is_warned_about_once_with_its_place(self, caplog: pytest.LogCaptureFixture):
        """A connection held longer than leak_threshold is warned about with the stack of its acquire."""

        async def scenario() -> None:
            async with make(leak_threshold=3.0) as pool:
                lease = await pool.acquire()
                await asyncio.sleep(10)
                pool.release(lease)

        run_virtual(scenario())
        assert caplog.text.count("is held for") == 1
        assert "in scenario" in caplog.text

    def test_a_pool_that_runs_low_warns_once_a_minute(self, caplog: pytest.LogCaptureFixture):
        """When less than a third is free there is a warning, but not with every acquire."""

        async def scenario() -> None:
            async with make(max_size=6) as pool:
                for _ in range(3):
                    leases = [await pool.acquire() for _ in range(6)]

                    for lease in leases:
                        pool.release(lease)

                assert caplog.text.count("runs low") == 1
                await asyncio.sleep(61)
                leases = [await pool.acquire() for _ in range(6)]

                for lease in leases:
                    pool.release(lease)

                assert caplog.text.count("runs low") == 2

        with caplog.at_level(logging.WARNING):
            run_virtual(scenario())

    def test_statistics_are_a_frozen_snapshot(self):
        """The numbers add up, and have names for OpenTelemetry and for people."""

        async def scenario() -> PoolStatistics:
            async with make(max_size=1) as pool:
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

    def test_health_asks_the_server(self):
        """Health is the answer to a ping, with the time it took or the reason it failed."""

        async def scenario() -> None:
            connector = FakeConnector()
            connector.delay = lambda: 0.02

            async with make(connector) as pool:
                good = await pool.health()
                assert good.ok
                assert good.latency == pytest.approx(0.02)
                connector.down = True
                bad = await pool.health()
                assert not bad.ok
                assert "refused" in bad.detail
                connector.down = False

        run_virtual(scenario())


async def test_a_binding_belongs_to_one_task():
    """What is bound to a task is not seen by its children, and is only unbound by its owner."""
    binding: TaskBinding[str] = TaskBinding()
    assert binding.current() is None
    task = binding.bind("mine")
    assert binding.current() == "mine"
    assert await asyncio.create_task(_look(binding)) is None
    binding.unbind("another's")
    assert binding.current() == "mine"
    await asyncio.create_task(_unbind(binding, task))
    assert binding == {}


async def _look(binding: TaskBinding[str]) -> str | None:
    return binding.current()


async def _unbind(binding: TaskBinding[str], task: asyncio.Task[object] | None) -> None:
    binding.unbind("mine", task)


def test_a_fake_connector_is_a_connector():
    """The protocol that the fake fulfils is the one that drivers fulfil."""
    connector: Connector[FakeConnection] = FakeConnector()
    assert str(connector) == "fake://server"
