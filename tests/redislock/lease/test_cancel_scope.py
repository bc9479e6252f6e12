"""Clients that lose a cancel, as redis-py does on Python 3.11 when it comes together with a reply."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from ws_redislock import MutexLock
from ws_redislock._coordination.coordinator import coordinator_for
from ws_redislock._lease.lease import boot_time
from ws_redislock._redis.script_client import ScriptClient
from ws_redislock._redis.scripts import Script, load


class Careless:
    """A client that answers all the same."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked = asyncio.Event()

    async def execute_command(self, *_command: Any, **_options: Any) -> Any:  # any command
        """Wait to be cancelled, and go on."""
        self.asked.set()

        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if isinstance(self.answer, Exception):
                raise self.answer from None

            return self.answer


class CarelessPipeline(Careless):
    """The same for commands that go together."""

    def pipeline(self, *, transaction: bool) -> CarelessPipeline:
        """Return itself."""
        assert not transaction
        return self

    def execute_command(self, *_command: Any, **_options: Any) -> Any:  # any command
        """Collect."""

    async def execute(self, **_options: Any) -> Any:  # any replies
        """Wait to be cancelled, and go on."""
        return await Careless.execute_command(self)


class SilentSubscription(Careless):
    """A subscription that begins although its task was cancelled."""

    async def subscribe(self, *_channels: str) -> None:
        """Wait to be cancelled, and go on."""
        await self.execute_command()

    async def parse_response(self, **_options: Any) -> None:
        """Receive nothing for long."""
        await asyncio.sleep(60)

    async def aclose(self) -> None:
        """Do nothing."""


class TestSwallowedCancels:
    """A cancel that the client has lost is raised all the same."""

    @pytest.mark.parametrize("answer", [[1, 7], OSError("broken")])
    async def test_of_a_call(self, answer: object):
        """Whether the call was answered or failed."""
        client = Careless(answer)
        task = asyncio.create_task(ScriptClient(client).once(load("status"), [b"k"], [], 5))
        await client.asked.wait()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_a_time_limit_around_it_is_kept(self):
        """`asyncio.timeout` gets its own cancel back."""
        client = Careless([1, 7])

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await ScriptClient(client).once(load("status"), [b"k"], [], 5)

        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    async def test_a_time_limit_of_the_call_is_not_taken_for_one(self):
        """What the client makes of our own time limit is its answer."""
        client = Careless([1, 7])
        assert await ScriptClient(client).once(load("status"), [b"k"], [], 0.01) == [1, 7]

    async def test_of_an_acquisition(self):
        """A task that is cancelled does not go on with a lock."""
        client = Careless([1, 7])
        task = asyncio.create_task(MutexLock(client, "k", 60).acquire())
        await client.asked.wait()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

    @pytest.mark.parametrize("several", [False, True])
    async def test_of_calls_that_go_together(self, several: bool):
        """With replicas that confirm, and of several names."""
        client = CarelessPipeline([[1, 7], 1])
        scripts = ScriptClient(client)
        call: tuple[Script, list[bytes], list[str]] = (load("status"), [b"k"], [])
        task = asyncio.create_task(
            scripts.many([call, call], 5) if several else scripts.confirmed(*call, replicas=1, within=5)
        )
        await client.asked.wait()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_of_the_listener(self, redis: Redis, monkeypatch: pytest.MonkeyPatch):
        """A program that ends is not kept for as long as its subscription would notice nothing."""
        coordinator = coordinator_for(redis)
        silent = SilentSubscription(None)
        monkeypatch.setattr(ScriptClient, "subscription", lambda _: silent)
        listener = coordinator._wakeups
        beginning = asyncio.create_task(listener.begin(None, boot_time()))
        await silent.asked.wait()
        task = listener._job
        assert task is not None
        listener.stop()
        await asyncio.wait([task], timeout=10)
        assert task.cancelled()
        await beginning
