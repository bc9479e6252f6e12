"""Cancellation at any moment, any number of times: no connection is lost, no reply crosses over."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable

import pytest

from tests.pool.core.fakes import FakeConnection, FakeConnector, now
from ws_core.testing import run_virtual
from ws_pool._core.checkout import Checkout
from ws_pool.errors import WsError
from ws_pool.pool import Lease, Pool

SEEDS = 10_000
CHUNKS = 10
CLOSE_TIMEOUT = 10.0  # seconds for a close; every lease here comes back much earlier


class CrossTalkError(AssertionError):
    """A task got the reply to another task's request."""


def check_books(pool: Pool[FakeConnection], connector: FakeConnector) -> None:
    """Assert what must hold at every moment."""
    state = pool._state
    entries = [*state.idle, *state.leased]
    assert len(set(entries)) == len(entries)
    assert min(state.connecting, state.verifying, state.suspected, state.resetting, state.closing) >= 0
    assert state.size <= state.max_size
    assert len(connector.live) <= state.max_size
    assert all(entry.conn.open for entry in entries)
    statistics = pool.statistics()
    assert statistics.opened - statistics.closed == len(connector.live)

    if any(not waiter.done() for waiter in state.waiters):
        fresh = [entry for entry in state.idle if now() < entry.check_at and connector.is_alive(entry.conn)]
        assert not fresh, "somebody waits beside an idle connection"


class Run:
    """One seeded interleaving: some users, a killer, and a pool that may be closed in their midst."""

    def __init__(self, seed: int, *, careless: bool = False) -> None:
        self.rng = random.Random(seed)
        self.connector = FakeConnector(
            seed, failures=self.rng.choice((0.0, 0.0, 0.05, 0.3)), careless=careless
        )
        size = self.rng.randint(1, 3)
        self.pool = Pool(
            self.connector,
            min_size=self.rng.randint(0, size),
            max_size=size,
            acquire_timeout=self.rng.choice((0.005, 0.3, 5.0)),
            connect_timeout=0.5,
            ping_after=self.rng.choice((0.0, 0.01, 1.0)),
            ping_timeout=0.1,
            max_lifetime=self.rng.choice((None, 0.05)),
            clock=now,
        )
        self.request = 0

    async def user(self) -> None:
        """Use connections, a few times, with all that users do."""
        rng = self.rng

        for _ in range(rng.randint(1, 4)):
            try:
                lease = await self.pool.acquire()
            except WsError:
                continue

            try:
                await self.use(lease)
            except ConnectionError:
                pass
            finally:
                self.pool.release(lease, discard=rng.random() < 0.1)
                check_books(self.pool, self.connector)

            if rng.random() < 0.3:
                await asyncio.sleep(rng.choice((0.0, 0.002)))

    async def use(self, lease: Lease[FakeConnection]) -> None:
        """Exchange something, or only hold the connection; it may break or be left dirty."""
        rng, conn = self.rng, lease.connection

        for _ in range(rng.randint(0, 3)):
            self.request += 1
            request = self.request
            reply = await conn.exchange(request, rng.choice((0.0, 0.001, 0.003)))

            if reply != request:
                raise CrossTalkError(request, reply)

        conn.dirty = rng.random() < 0.2
        conn.broken = rng.random() < 0.05

        if rng.random() < 0.3:
            await asyncio.sleep(rng.choice((0.0, 0.002)))

    async def killer(self, users: list[asyncio.Task[None]]) -> None:
        """Cancel users at any moment, some of them twice; expire the pool now and then."""
        rng = self.rng

        for _ in range(rng.randint(1, 8)):
            await asyncio.sleep(rng.choice((0.0, 0.0, 0.0005, 0.001, 0.002, 0.01)))
            victim = rng.choice(users)

            for _ in range(rng.randint(1, 2)):
                victim.cancel()

                if rng.random() < 0.5:
                    await asyncio.sleep(0)

            if rng.random() < 0.1:
                self.pool.expire()

            check_books(self.pool, self.connector)

    async def play(self) -> None:
        """Play it to the end."""
        rng = self.rng

        try:
            await self.pool.start()
        except WsError:
            assert self.connector.live == []
            return

        users = [asyncio.create_task(self.user()) for _ in range(rng.randint(2, 6))]
        killer = asyncio.create_task(self.killer(users))

        try:
            await self.play_out(users, killer)
        finally:
            for task in [*users, killer]:
                task.cancel()

            await asyncio.gather(*users, killer, return_exceptions=True)
            await self.pool.close(timeout=0)

    async def play_out(self, users: list[asyncio.Task[None]], killer: asyncio.Task[None]) -> None:
        """Let the users run, and assert that nothing is left over."""
        rng = self.rng

        if rng.random() < 0.3:
            await asyncio.sleep(rng.choice((0.0, 0.001, 0.005)))
            await self.close()

        results = await asyncio.gather(*users, return_exceptions=True)
        await killer
        assert not self.pool._state.leased, "a connection has no holder and is not back"

        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

        await self.close()
        await asyncio.sleep(0.001)  # the tasks of a pool whose close was cancelled end a few turns later
        assert self.connector.live == []
        assert self.pool._state.size == 0
        assert len(self.pool._maintainer._tasks) == 0
        assert (
            self.pool.statistics().opened == self.pool.statistics().closed == len(self.connector.connections)
        )

    async def close(self) -> None:
        """Close the pool, now and then from a task that is cancelled."""
        begin = now()
        closing = asyncio.create_task(self.pool.close(timeout=self.rng.choice((0.0, 0.001, CLOSE_TIMEOUT))))

        if self.rng.random() < 0.3:
            await asyncio.sleep(self.rng.choice((0.0, 0.0005)))
            closing.cancel()

        await asyncio.wait([closing])
        assert now() - begin < CLOSE_TIMEOUT, "the close went on waiting though everything had come back"


async def play_all(seeds: range) -> None:
    """Play many interleavings, naming the seed of the first that fails."""
    for seed in seeds:
        try:
            await Run(seed).play()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_interleaving_leaves_the_books_whole(chunk: int):
    """In 10,000 seeded interleavings of use, cancel, failure and close nothing leaks or crosses over."""
    size = SEEDS // CHUNKS
    run_virtual(play_all(range(chunk * size, (chunk + 1) * size)))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_tasks_may_be_eager():
    """The books stay whole in a loop whose tasks begin before create_task() returns."""

    async def scenario() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined] # as above
        await play_all(range(1000))

    run_virtual(scenario())


def test_a_careless_connector_lets_replies_cross_over():
    """The broken twin, which takes connections cut short for sound, is caught."""

    async def scenario() -> None:
        for seed in range(500):
            await Run(seed, careless=True).play()

    with pytest.raises(CrossTalkError):
        run_virtual(scenario())


def losing(take_back: Callable[..., None]) -> Callable[..., None]:
    """Make the broken twin that forgets a connection whose hand-over crossed with a cancellation."""

    def lose(self: Checkout[FakeConnection], entry: object, discard: bool = False, used: bool = True) -> None:
        if used:
            take_back(self, entry, discard, used)

    return lose


def test_a_pool_that_forgets_a_crossed_hand_over_is_caught(monkeypatch: pytest.MonkeyPatch):
    """The broken twin loses a connection in some interleaving, which the books show."""
    monkeypatch.setattr(Checkout, "take_back", losing(Checkout.take_back))

    with pytest.raises(AssertionError):
        run_virtual(play_all(range(2000)))
