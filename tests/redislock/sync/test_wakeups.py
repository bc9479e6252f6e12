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
from redis.exceptions import NoPermissionError

from ws_redislock.sync import MutexLock
from ws_redislock.sync._concurrency import Job, Loop, Mutex
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
    assert "receives nothing any more" not in caplog.text


def test_a_silent_subscription_begins_anew(
    client: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """A ping without an answer ends the subscription, and the next one serves the waiter."""
    monkeypatch.setattr(PubSub, "ping", lambda _self: None)
    monkeypatch.setattr(wakeups, "QUIET", -1.0)
    monkeypatch.setattr(wakeups, "READ_SLICE", 0.01)
    wait_beside(client, lambda: "receives nothing any more" in caplog.text)


class Owner:
    """A coordinator without a server."""

    id = "h"

    def __init__(self) -> None:
        self.mutex = Mutex()
        self.timers: Any = Loop()
        self.waiting = False
        self.now = 1000.0
        self.looked = 0
        self.scripts: Any = self
        self.refusal: Exception | None = None

    def time(self) -> float:
        """Return the time, which stands still."""
        return self.now

    def look_at_all(self) -> None:
        """Count."""
        self.looked += 1

    def wake(self, tokens: object) -> None:
        """Do nothing."""

    def spawn(self, work: Callable[[], None]) -> Any:
        """Run it now."""
        work()
        job = Job()
        job._over.set()
        return job

    def subscription(self) -> Any:
        """Fail."""
        assert self.refusal is not None
        raise self.refusal


class TestWithoutAServer:
    """The ends of a subscription, with a coordinator of the test's own."""

    def test_idle_without_a_beginning(self):
        """What never listened has nothing to stop."""
        wakeups_of = WakeupSubscription(Owner())
        wakeups_of.stop_when_idle()
        assert wakeups_of._idle_timer is None
        wakeups_of.stop()
        assert wakeups_of._stopped

    def test_waiters_that_came_meanwhile(self):
        """It goes on when there are waiters again at the end of its idle time."""
        owner = Owner()
        owner.waiting = True
        wakeups_of = WakeupSubscription(owner)
        wakeups_of._stop_if_idle()
        assert not wakeups_of._stopped
        owner.waiting = False
        wakeups_of._stop_if_idle()
        assert wakeups_of._stopped

    def test_a_client_that_cannot_subscribe(self):
        """Without waiters it ends; the next waiter begins anew, and is not held up."""
        owner = Owner()
        owner.refusal = ConnectionError("gone")
        wakeups_of = WakeupSubscription(owner)
        assert not wakeups_of.begin(None, time.monotonic() + 1000)
        assert wakeups_of._ready.is_set()
        assert not wakeups_of.refused

    def test_a_server_that_refuses(self, caplog: pytest.LogCaptureFixture):
        """Waiters look by themselves, and the server is left alone for a while."""
        owner = Owner()
        owner.refusal = NoPermissionError("this user has no permissions to access the channel")
        wakeups_of = WakeupSubscription(owner)
        wakeups_of.begin(None, 0.0)
        assert wakeups_of.refused
        assert owner.looked == 1
        assert not wakeups_of.begin(None, 0.0)  # without another attempt
        assert caplog.text.count("no wake-ups") == 1
        owner.now += 31
        assert not wakeups_of.refused

    def test_messages(self):
        """A second confirmation means that messages may be lost: all look, or nobody does any more."""
        owner = Owner()
        wakeups_of = WakeupSubscription(owner)
        ready = Event()
        assert wakeups_of._take([b"subscribe", b"c", 1], ready)
        assert owner.looked == 0
        assert not wakeups_of._take([b"subscribe", b"c", 1], ready)
        owner.waiting = True
        assert wakeups_of._take([b"subscribe", b"c", 1], ready)
        assert owner.looked == 1
        assert wakeups_of._take([b"unsubscribe", b"c", 0], ready)
        wakeups_of._late = True
        assert wakeups_of._take(["subscribe", "c", 1], Event())
        assert (owner.looked, wakeups_of._late) == (2, False)

    def test_stopped_before_it_has_read(self):
        """A subscription that is stopped reads nothing more."""
        wakeups_of = WakeupSubscription(Owner())
        wakeups_of.stop()
        assert not wakeups_of._read(None, Event())
        wakeups_of._keep_subscribed(Event())
