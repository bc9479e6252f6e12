"""The generic pool in virtual time: tasks that end inside of their blocks."""

from __future__ import annotations

import asyncio
import gc

import pytest

from tests.pool.core.fakes import FakeConnection, FakePool, make_pool
from ws_core.testing import run_virtual
from ws_pool.context import TaskBinding
from ws_pool.pool import Lease


class Client:
    """A client that is bound to its task, and part of a cycle."""

    def __init__(self, lease: Lease[FakeConnection]) -> None:
        self.lease = lease
        self.itself = self


async def enter(pool: FakePool, binding: TaskBinding[Client]) -> Client:
    """Acquire a connection, bind it to the running task, and never leave."""
    client = Client(await pool.acquire())
    binding.bind(client)
    return client


async def forget(pool: FakePool, binding: TaskBinding[Client]) -> None:
    """Enter in a task that ends, and hold nothing of it."""
    task = asyncio.create_task(enter(pool, binding), name="careless")
    await asyncio.wait([task])


def test_a_client_of_an_ended_task_gives_its_connection_back():
    """The pool warns with the task's name, and the next acquire is served within two seconds."""

    async def scenario() -> None:
        binding: TaskBinding[Client] = TaskBinding()

        async with make_pool(max_size=1, leak_threshold=60) as pool:
            pool.bindings.append(binding)
            await forget(pool, binding)

            with pytest.warns(
                ResourceWarning, match=r"task 'careless' was dropped .* acquired at(.|\n)*in enter"
            ):
                lease = await pool.acquire(timeout=2.0)

            assert not binding
            pool.release(lease)

    run_virtual(scenario())


def test_without_the_binding_the_connection_is_lost():
    """The control: what is bound to an ended task stays alive until its pool knows of the binding."""

    async def scenario() -> None:
        binding: TaskBinding[Client] = TaskBinding()

        async with make_pool(max_size=1) as pool:
            await forget(pool, binding)

            with pytest.raises(TimeoutError):
                await pool.acquire(timeout=5.0)

            pool.bindings.append(binding)

            with pytest.warns(ResourceWarning, match="careless"):
                pool.release(await pool.acquire(timeout=2.0))

    run_virtual(scenario())


def test_a_client_that_went_to_another_task_keeps_its_connection():
    """A block may be entered in a task that ends and be left by another one, as a fixture's is."""

    async def scenario() -> None:
        binding: TaskBinding[Client] = TaskBinding()

        async with make_pool(max_size=1) as pool:
            pool.bindings.append(binding)
            client = await asyncio.create_task(enter(pool, binding))
            await asyncio.sleep(5)
            gc.collect()
            assert pool.statistics().leased == 1
            pool.release(client.lease)
            assert pool.statistics().leased == 0

    run_virtual(scenario())
