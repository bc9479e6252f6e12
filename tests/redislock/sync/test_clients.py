"""What the locks of threads take for a Redis client: clients, pools, managers, names of pools and URLs."""

from __future__ import annotations

import importlib.metadata
from types import SimpleNamespace
from typing import Any

import pytest
import redis as blocking
from redis.asyncio import Redis as AsyncRedis

from ws_redislock import UsageError
from ws_redislock.sync._redis import clients
from ws_redislock.sync._redis.clients import check_source, resolve

CLIENT = blocking.Redis()  # connects at its first command, which nobody sends


class Manager:
    """A set of pools."""

    def get_pool(self, name: str = "default") -> Any:
        """Return a pool, of which there is one."""
        return {"default": SimpleNamespace(redis=CLIENT)}[name]


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with no kind accepted and no manager found."""
    monkeypatch.setattr(clients, "_managers", [])
    monkeypatch.setattr(clients, "_accepted", set())
    monkeypatch.setattr(clients, "_holders", set())


def publish(monkeypatch: pytest.MonkeyPatch, *managers: Manager) -> None:
    """Let an installed distribution publish managers."""
    entries = [SimpleNamespace(load=lambda manager=manager: manager) for manager in managers]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: entries)


class TestSources:
    """Each is resolved to its client."""

    @pytest.mark.parametrize("source", [CLIENT, SimpleNamespace(redis=CLIENT), Manager()])
    def test_objects(self, source: Any):
        """A client, a pool and a manager; a second time too, when the kind is known."""
        for _ in range(2):
            check_source(source)
            assert resolve(source) == (CLIENT, False)

    def test_a_url(self):
        """Its client is made here, and must be closed here."""
        client, is_own = resolve("redis://127.0.0.1:1/0")
        assert isinstance(client, blocking.Redis)
        assert is_own
        client.close()

    def test_the_name_of_a_pool(self, monkeypatch: pytest.MonkeyPatch):
        """It is one of the manager that an installed distribution publishes."""
        publish(monkeypatch, Manager())
        assert resolve("default") == (CLIENT, False)


class TestRefused:
    """What cannot be a source is refused when it is given."""

    def test_other_schemes(self):
        """The error names those there are."""
        with pytest.raises(UsageError, match="a Redis URL begins with"):
            check_source("http://127.0.0.1")

    def test_a_name_without_pools(self, monkeypatch: pytest.MonkeyPatch):
        """There is no manager that would know it."""
        publish(monkeypatch)

        with pytest.raises(UsageError):
            check_source("default")

    @pytest.mark.parametrize("source", [5, object()])
    def test_other_objects(self, source: Any):
        """The error lists what may be given."""
        with pytest.raises(UsageError, match="is not a Redis client: pass a"):
            check_source(source)

    async def test_clients_for_tasks(self):
        """They have a library of their own."""
        with pytest.raises(UsageError):
            check_source(AsyncRedis())
