"""Buses of a module: over a manager that is started later, and started in one event loop after another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ws_pool.errors import NotReadyError, UsageError
from ws_pool.events import RedisEventBus, StreamEventBus
from ws_pool.redis import RedisPoolManager

Bus = RedisEventBus | StreamEventBus


@pytest.fixture
def manager(redis_url: str) -> RedisPoolManager:
    """Make a manager that is not started."""
    manager = RedisPoolManager()
    manager.register({"default": redis_url})
    return manager


@pytest.fixture(params=[RedisEventBus, StreamEventBus])
def bus(request: pytest.FixtureRequest, manager: RedisPoolManager) -> Bus:
    """Make a bus of each kind over the manager."""
    made: Bus = request.param(manager, *(("again",) if request.param is RedisEventBus else ("again", "g")))
    return made


@asynccontextmanager
async def started(manager: RedisPoolManager, bus: Bus) -> AsyncIterator[None]:
    """Start both, as a lifespan does."""
    async with manager, bus:
        yield


class TestManagers:
    """A manager stands for its default pool."""

    async def test_before_its_start(self, bus: Bus) -> None:
        """The error names what is not started, and the bus can be started afterwards."""
        with pytest.raises(NotReadyError, match="RedisPoolManager is not started"):
            await bus.start()

        await bus.close()

    def test_a_source_that_is_none(self) -> None:
        """A URL, or anything else, is refused when the bus is made; its password is not shown."""
        for wrong in ("redis://:hunter2@host/0", object()):
            with pytest.raises(UsageError, match="needs a RedisPool, a manager of pools") as caught:
                RedisEventBus(wrong, "c")  # type: ignore[arg-type]  # that is what is tested

            assert "hunter2" not in str(caught.value)


class TestRestart:
    """A bus that was closed."""

    def test_in_another_event_loop(self, manager: RedisPoolManager, bus: Bus) -> None:
        """It starts anew with its listeners, and delivers."""

        async def live(number: int) -> None:
            got: asyncio.Queue[Any] = asyncio.Queue()

            async def listener(what: int) -> None:
                got.put_nowait(what)

            # A listener may come while the bus is closed: it waits for the start, like those of a new bus.
            bus.add_listener("tag", listener)

            async with started(manager, bus):
                for offset in range(3):
                    await bus.publish("tag", number + offset)

                assert [await asyncio.wait_for(got.get(), 60) for _ in range(3)] == [
                    number,
                    number + 1,
                    number + 2,
                ]

            assert bus.remove_listener("tag", listener)

        for number in (0, 10, 20):
            asyncio.run(live(number))

    async def test_while_it_is_open(self, manager: RedisPoolManager, bus: Bus) -> None:
        """A second start is refused, and harms nothing."""
        async with started(manager, bus):
            with pytest.raises(UsageError, match="already"):
                await bus.start()

            await bus.publish("tag", 1)

    async def test_a_stream_bus_that_is_closing(self, manager: RedisPoolManager) -> None:
        """It cannot be started until it is closed; a second close does nothing."""
        bus = StreamEventBus(manager, "closing", "g")
        entered, leave = asyncio.Event(), asyncio.Event()

        async def listener() -> None:
            entered.set()
            await leave.wait()

        bus.add_listener("tag", listener)

        async with manager:
            await bus.start()
            await bus.publish("tag")
            await asyncio.wait_for(entered.wait(), 60)
            closing = asyncio.create_task(bus.close(drain=60))
            await asyncio.sleep(0)
            await bus.close()

            with pytest.raises(UsageError, match="is closing already"):
                await bus.start()

            leave.set()
            await closing
            await bus.start()
            await bus.close()
