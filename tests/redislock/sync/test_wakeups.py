"""The subscription of the twin for threads when the server is quiet, or says nothing more."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from redis import Redis
from redis.client import PubSub

from ws_redislock.sync import MutexLock
from ws_redislock.sync._coordination import wakeups
from ws_redislock.sync._coordination.wakeups import WakeupSubscription


def wait_beside(client: Redis, condition: Callable[[], object]) -> None:
    """Have a thread wait for a lock until something is true; it must get the lock then."""
    first, second = MutexLock(client, "k", 60), MutexLock(client, "k", 60)
    assert first.acquire()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(second.acquire, 20)
        end = time.monotonic() + 10

        while not condition():
            assert time.monotonic() < end
            time.sleep(0.001)

        assert first.release()
        assert waiting.result()

    assert second.release()


def test_a_quiet_server_is_asked(
    client: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """The answer to a ping shows that the subscription is alive: it stays."""
    taken: list[bytes] = []
    take, ping = WakeupSubscription._take, PubSub.ping

    def remember(self: WakeupSubscription, message: Any, ready: Event) -> bool:  # as the driver returns it
        taken.append(b"pong" if message == b"PONG" else message[0])  # RESP 3 and RESP 2
        return take(self, message, ready)

    def ask(self: PubSub) -> None:
        monkeypatch.setattr(wakeups, "READ_SLICE", 30.0)  # however long the answer takes here
        ping(self)

    monkeypatch.setattr(WakeupSubscription, "_take", remember)
    monkeypatch.setattr(PubSub, "ping", ask)
    monkeypatch.setattr(wakeups, "QUIET", -1.0)
    monkeypatch.setattr(wakeups, "READ_SLICE", 0.01)
    wait_beside(client, lambda: b"pong" in taken)
    assert taken.count(b"subscribe") == 1
    assert "went deaf" not in caplog.text


def test_a_deaf_subscription_begins_anew(
    client: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """A ping without an answer ends the subscription, and the next one serves the waiter."""
    monkeypatch.setattr(PubSub, "ping", lambda _self: None)
    monkeypatch.setattr(wakeups, "QUIET", -1.0)
    monkeypatch.setattr(wakeups, "READ_SLICE", 0.01)
    wait_beside(client, lambda: "went deaf" in caplog.text)
