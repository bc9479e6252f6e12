"""Nobody ever reads another's reply: the proof that sharing a connection is safe."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from tests.servers import StartServer
from tools.servers import RedisServer, ValkeyServer
from ws_core.testing import FaultProxy
from ws_pool._redis.connection import pipelined
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool.errors import WsError
from ws_pool.redis import RedisPool

pytestmark = pytest.mark.outage

TASKS = 200


class Storm:
    """
    Tasks that send commands whose replies identify themselves, under all kinds of faults.

    Args:
        pool: The pool under test.
        commands: How many commands to send in all.
        seed: Of the random choices.
    """

    def __init__(self, pool: RedisPool, commands: int, seed: int) -> None:
        self._redis = pool.redis
        self._left = commands
        self._chance = random.Random(seed)
        self._number = 0
        self.sent = 0
        self.outcomes: Counter[str] = Counter()
        self.mixed_up: list[tuple[object, object]] = []

    async def run(self) -> None:
        """Send all commands."""
        async with asyncio.TaskGroup() as group:
            for index in range(TASKS):
                group.create_task(self._caller(index))

    async def _caller(self, index: int) -> None:
        while self._left > 0:
            count, action = self._choose(index)
            self._left -= count
            self.sent += count
            self.outcomes[await self._outcome(action)] += count

    async def _outcome(self, action: asyncio.Task[bool]) -> str:
        """Let an action go on, or cut it short, and return what became of it."""
        fate = self._chance.random()

        try:
            if fate < 0.15:
                for _ in range(self._chance.randrange(4)):
                    await asyncio.sleep(0)

                action.cancel()
            elif fate < 0.3:
                async with asyncio.timeout(self._chance.random() * 0.02):
                    await action

            return "right" if await action else "mixed up"
        except asyncio.CancelledError:
            return "cancelled"
        except TimeoutError as error:
            return "refused" if isinstance(error, WsError) else "timed out"
        except (WsError, ConnectionError):
            return "lost"
        except Exception as error:  # noqa: BLE001 - a reply of another shape than the command's
            self.mixed_up.append((error, action))
            return "mixed up"

    def _choose(self, index: int) -> tuple[int, asyncio.Task[bool]]:
        kind = self._chance.random()

        if kind < 0.5:
            return 1, asyncio.ensure_future(self._echo())
        if kind < 0.65:
            return 1, asyncio.ensure_future(self._own_value(index))
        if kind < 0.9:
            return 10, asyncio.ensure_future(self._batch(10, transaction=False))

        return 7, asyncio.ensure_future(self._batch(5, transaction=True))

    async def _echo(self) -> bool:
        token = self._token()
        return self._check(await self._redis.echo(token), token)

    async def _own_value(self, index: int) -> bool:
        expected = f"value:{index}"
        return self._check(await self._redis.getset(f"key:{index}", expected), expected, None)

    async def _batch(self, count: int, *, transaction: bool) -> bool:
        tokens = [self._token() for _ in range(count)]

        async with self._redis.pipeline(transaction=transaction) as pipe:
            for token in tokens:
                pipe.echo(token)

            return self._check(await pipe.execute(), tokens)

    def _token(self) -> str:
        self._number += 1
        return f"token:{self._number}"

    def _check(self, reply: object, *expected: object) -> bool:
        if reply in expected:
            return True

        self.mixed_up.append((reply, expected))
        return False


@pytest.mark.parametrize(
    ("commands", "seed", "shared_connections"),
    [
        (100_000, 1, 1),
        (20_000, 4, 3),
        *(
            pytest.param(1_000_000, seed, shared_connections, marks=pytest.mark.soak)
            for seed, shared_connections in ((2, 1), (3, 3))
        ),
    ],
)
@pytest.mark.parametrize("kind", [RedisServer, ValkeyServer])
async def test_no_reply_is_ever_mixed_up(
    start_server: StartServer, kind: type[RedisServer], commands: int, seed: int, shared_connections: int
) -> None:
    """Each of 100,000 commands, amid cancels, timeouts, cuts and restarts, gets its own reply or an error."""
    server = start_server(kind)
    chaos_chance = random.Random(seed)
    restarts = cuts = 0

    async with (
        FaultProxy(server.host, server.port) as proxy,
        RedisPool(
            url=proxy.url(server.url),
            decode_responses=True,
            outage_timeout=20.0,
            shared_connections=shared_connections,
        ) as pool,
    ):
        proxy.delay(0.0005, jitter=0.002)
        storm = Storm(pool, commands, seed)
        running = asyncio.ensure_future(storm.run())

        while not running.done():
            await asyncio.wait([running], timeout=chaos_chance.uniform(0.02, 0.2))

            if restarts <= cuts // 3:
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.restart)
                restarts += 1
            else:
                proxy.cut()
                cuts += 1

        await running
        assert await pool.redis.ping()
        shared = pool.statistics().shared

    assert storm.mixed_up == []
    assert storm.sent >= commands
    assert sum(storm.outcomes.values()) == storm.sent
    assert {"right", "cancelled", "timed out", "lost"} <= storm.outcomes.keys()
    assert {(shared.in_line, shared.in_flight, shared.queued) for shared in shared} == {(0, 0, 0)}
    assert sum(shared.dropped for shared in shared) > 0
    assert restarts > 0
    assert cuts > 0
    assert sum(shared.losses for shared in shared) > 0


async def test_a_link_without_tombstones_is_caught(
    monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer
) -> None:
    """The broken twin takes cancelled slots out of the line and mixes replies up, which the storm sees."""
    hand_out = PipelinedConnection._hand_out

    def forgetful(connection: PipelinedConnection) -> None:
        gone = [slot for slot in connection.pending if slot.done()]

        for slot in gone:
            connection.pending.remove(slot)

        hand_out(connection)

    monkeypatch.setattr(pipelined.PipelinedConnection, "_hand_out", forgetful)

    async with (
        FaultProxy(redis_server.host, redis_server.port) as proxy,
        RedisPool(url=proxy.url(redis_server.url), decode_responses=True, command_timeout=0.5) as pool,
    ):
        proxy.delay(0.001, jitter=0.002)
        storm = Storm(pool, 5_000, seed=1)
        await storm.run()

    assert storm.mixed_up
