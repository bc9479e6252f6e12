"""The shared connection at its ends, and clients that belong to somebody else."""

from __future__ import annotations

import pytest
from redis import exceptions
from redis.asyncio import Redis

from ws_redislock import FrequencyLimiter
from ws_redislock._redis.connection import SharedConnection
from ws_redislock._redis.pipelined_protocol import PipelinedProtocol


class TestLink:
    """The shared connection at its ends."""

    async def test_no_stream(self):
        """A connection that cannot be taken over goes back to its pool."""
        released = []

        class Pool:
            max_connections = 100

            def can_get_connection(self) -> bool:
                return True

            async def get_connection(self) -> object:
                return self

            async def release(self, connection: object) -> None:
                released.append(connection)

        pool = Pool()

        with pytest.raises(AttributeError):
            await SharedConnection(pool).call(("PING",), 1.0)

        assert released == [pool]

    async def test_ends_once(self, redis7: Redis):
        """An aborted connection takes no more calls, and aborting it again changes nothing."""
        pool = redis7.connection_pool
        link = PipelinedProtocol(pool, await pool.get_connection())
        assert await link.call(("PING",), 5.0) == b"PONG"
        link.abort()
        assert link.closed
        cleaning = link._release
        link.abort()
        assert link._release is cleaning

        with pytest.raises(exceptions.ConnectionError, match="lost before the call"):
            await link.call((), 1.0)

        assert cleaning is not None
        await cleaning

    async def test_given_back_unused(self, redis7: Redis):
        """A connection that was never used goes back whole."""
        pool = redis7.connection_pool
        link = PipelinedProtocol(pool, await pool.get_connection())
        link.give_back()
        assert link._release is not None
        await link._release
        assert await redis7.ping()

    async def test_overdue_call_that_was_cancelled(self, redis7: Redis):
        """An overdue call whose caller has gone is left alone; a later one still gets its time."""
        pool = redis7.connection_pool
        link = PipelinedProtocol(pool, await pool.get_connection())
        gone, stays = link.call(("PING",), -1.0), link.call(("PING",), 5.0)
        gone.cancel()
        link._heard = float("inf")  # something was heard meanwhile
        link._expire()
        assert gone.cancelled()
        assert await stays == b"PONG"
        link.abort()
        assert link._release is not None
        await link._release


async def test_limiter_on_a_client_leaves_it_open(redis7: Redis):
    """Closing a limiter does not close a client that belongs to somebody else."""
    limiter = FrequencyLimiter(redis7, 10, 60)
    assert not await limiter.is_limited("k")
    await limiter.aclose()
    assert await redis7.ping()
