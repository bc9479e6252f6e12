"""The generic pool in virtual time: hooks that are coroutine functions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.pool.core.fakes import FakeConnection, make_pool, now
from ws_core.testing import run_virtual
from ws_pool.errors import AcquireTimeout


class Recorder:
    """Hooks that note when they begin and end; each takes a while."""

    def __init__(self, seconds: float = 0.05) -> None:
        self.seconds = seconds
        self.events: list[str] = []

    def hooks(self) -> dict[str, Any]:
        """All four hooks."""
        return {f"on_{name}": self.hook(name) for name in ("open", "acquire", "release", "close")}

    def hook(self, name: str) -> Any:
        """A hook that records its name."""

        async def hook(conn: FakeConnection) -> None:
            assert conn.open or name == "close"  # a terminated one is closed meanwhile
            self.events.append(f"{name} begins")
            await asyncio.sleep(self.seconds)
            self.events.append(f"{name} ends")

        return hook


class TestAwaited:
    """What a hook returns is awaited."""

    def test_each_hook_ends_before_the_next_begins(self):
        """A connection is opened, acquired, released and closed, each with its hook run to its end."""
        recorder = Recorder()

        async def scenario() -> None:
            async with make_pool(min_size=0, max_size=1, **recorder.hooks()) as pool, pool.lease():
                recorder.events.append("used")

        run_virtual(scenario())
        assert recorder.events == [
            "open begins", "open ends", "acquire begins", "acquire ends", "used",
            "release begins", "release ends", "close begins", "close ends",
        ]  # fmt: skip

    @pytest.mark.parametrize("min_size", [0, 1])
    def test_acquire_waits_for_its_hook(self, min_size: int):
        """On the fast path and after a wait alike, the caller has the connection when the hook has ended."""
        recorder = Recorder(0.5)

        async def scenario() -> None:
            async with make_pool(min_size=min_size, max_size=1, on_acquire=recorder.hook("acquire")) as pool:
                recorder.events.clear()
                start = now()
                lease = await pool.acquire()
                assert now() - start >= 0.5
                assert recorder.events == ["acquire begins", "acquire ends"]
                pool.release(lease)

        run_virtual(scenario())

    def test_a_released_connection_is_not_used_before_its_hook_has_ended(self):
        """The next waiter has the connection after the hook, though release itself does not wait."""
        recorder = Recorder(0.5)

        async def scenario() -> None:
            async with make_pool(max_size=1, on_release=recorder.hook("release")) as pool:
                lease = await pool.acquire()
                recorder.events.clear()
                start = now()
                pool.release(lease)
                assert now() == start
                assert pool.statistics().leased == 0

                async with pool.lease():
                    assert recorder.events == ["release begins", "release ends"]
                    assert now() - start >= 0.5

        run_virtual(scenario())


class TestFaults:
    """Hooks that fail, hang or are cancelled lose no connection."""

    def test_a_failing_hook_is_logged_and_loses_nothing(self, caplog: pytest.LogCaptureFixture):
        """An error of a coroutine is logged with the name of its function."""

        async def fail(conn: FakeConnection) -> None:
            await asyncio.sleep(0)
            raise ValueError(conn)

        async def scenario() -> None:
            async with make_pool(
                max_size=1, on_open=fail, on_acquire=fail, on_release=fail, on_close=fail
            ) as pool:
                for _ in range(3):
                    async with pool.lease():
                        pass

                assert pool.statistics().opened == 1

        run_virtual(scenario())
        assert caplog.text.count("fail failed") >= 8

    def test_a_hook_that_hangs_fails_the_acquire(self, caplog: pytest.LogCaptureFixture):
        """After connect_timeout the acquire fails, and the connection, which may be half used, is closed."""

        async def hang(_: FakeConnection) -> None:
            await asyncio.Event().wait()

        async def scenario() -> None:
            pool = make_pool(min_size=0, max_size=1, connect_timeout=2.0, on_acquire=hang)

            async with pool:
                with pytest.raises(AcquireTimeout, match="the hook on_acquire took longer than 2 s"):
                    await pool.acquire()

                await asyncio.sleep(0.1)
                assert (pool.statistics().size, pool.statistics().closed) == (0, 1)

        run_virtual(scenario())
        assert "took longer than 2 s" in caplog.text

    def test_a_hook_that_hangs_does_not_keep_a_released_connection(self):
        """After ping_timeout the connection is closed, and the next waiter gets a new one."""

        async def hang(_: FakeConnection) -> None:
            await asyncio.Event().wait()

        async def scenario() -> None:
            async with make_pool(max_size=1, on_release=hang, ping_timeout=1.0) as pool:
                async with pool.lease():
                    pass

                async with pool.lease(timeout=3.0) as conn:
                    assert conn.open

                assert pool.statistics().opened >= 2

        run_virtual(scenario())

    @pytest.mark.parametrize("turns", range(8))
    def test_a_cancelled_acquire_gives_the_connection_back(self, turns: int):
        """Whenever a task is cancelled while the hook runs, no connection stays leased."""
        recorder = Recorder(0.5)

        async def scenario() -> None:
            async with make_pool(max_size=1, on_acquire=recorder.hook("acquire")) as pool:
                task = asyncio.create_task(pool.acquire())
                await asyncio.sleep(turns * 0.1)
                task.cancel()
                await asyncio.wait([task])

                if not task.cancelled():
                    pool.release(task.result())

                await asyncio.sleep(1)
                assert pool.statistics().leased == 0

                async with pool.lease(timeout=1):
                    pass

        run_virtual(scenario())

    def test_hooks_of_terminated_connections_end_before_close_returns(self):
        """A connection that is terminated by close has its on_close run to its end."""
        recorder = Recorder(0.3)

        async def scenario() -> None:
            pool = make_pool(max_size=1, on_close=recorder.hook("close"))
            await pool.start()
            lease = await pool.acquire()
            start = now()
            await pool.close(timeout=0)
            assert now() - start >= 0.3
            assert recorder.events == ["close begins", "close ends"]
            assert lease.connection is not None
            lease._entry = None

        run_virtual(scenario())
