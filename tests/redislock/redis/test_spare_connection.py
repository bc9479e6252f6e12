"""Connections beside the user's pool."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Connection, ConnectionPool
from redis.exceptions import ConnectionError as DriverConnectionError

from ws_redislock._redis.spare_connection import SpareConnections


class TestSpareConnections:
    """They stand in for the pool."""

    async def test_one_that_cannot_connect(self, monkeypatch: pytest.MonkeyPatch):
        """It is closed, and the error comes out."""
        closed: list[Connection] = []

        async def disconnect(self: Connection, *_: object, **__: object) -> None:
            closed.append(self)

        async def connect(self: Connection) -> None:
            raise DriverConnectionError("refused")

        monkeypatch.setattr(Connection, "disconnect", disconnect)
        monkeypatch.setattr(Connection, "connect", connect)
        pool: Any = ConnectionPool()

        with pytest.raises(DriverConnectionError, match="refused"):
            await SpareConnections(pool).get_connection()

        assert len(closed) == 1

    async def test_encodes_as_the_pool_does(self):
        """The driver's pipelines and subscriptions ask for that."""
        pool: Any = ConnectionPool(encoding="latin-1", decode_responses=True)
        encoder = SpareConnections(pool).get_encoder()
        assert (encoder.encoding, encoder.decode_responses) == ("latin-1", True)
