"""Connections that one worker takes from the shared socket, when something is wrong with them."""

from __future__ import annotations

import asyncio
import logging

import pytest

from ws_web._acceptor import Acceptor


async def fail() -> None:
    """Fail as a TLS handshake does."""
    raise ConnectionResetError("no handshake")


async def test_a_connection_that_fails_before_it_is_open(caplog: pytest.LogCaptureFixture) -> None:
    """It is forgotten, with a line for those who look for it; one that was cancelled has none."""
    acceptor = Acceptor.__new__(Acceptor)
    failed: asyncio.Task[object] = asyncio.ensure_future(fail())
    cancelled: asyncio.Task[object] = asyncio.ensure_future(asyncio.sleep(60))
    acceptor._opening = {failed, cancelled}
    cancelled.cancel()
    await asyncio.wait({failed, cancelled})

    with caplog.at_level(logging.DEBUG, logger="ws_web"):
        acceptor._opened(failed)
        acceptor._opened(cancelled)

    assert not acceptor._opening
    assert [record.getMessage() for record in caplog.records] == [
        "a connection failed before it was open: no handshake"
    ]
