"""Where a Redis client comes from: clients, pools, managers and functions, by their shapes."""

from __future__ import annotations

import pytest

from ws_core.errors import ConfigError
from ws_core.sources import client_getter, unread_in_redis_url


class Client:
    """A client with one command."""

    def get(self) -> str:
        """Return a value."""
        return "value"


class Pool:
    """A pool whose client is there when it is started."""

    def __init__(self, client: Client | None = None) -> None:
        self.client = client

    @property
    def redis(self) -> Client:
        """The client."""
        if self.client is None:
            raise LookupError("not started")

        return self.client


class Manager:
    """A manager of one pool."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def get_pool(self, name: str = "default") -> Pool:
        """Return the pool."""
        assert name == "default"
        return self.pool


class TestSources:
    """What may stand for a client."""

    def test_each_kind(self) -> None:
        """A client, a pool, a manager, or a function that returns a client."""
        client = Client()

        for source in (client, Pool(client), Manager(Pool(client)), lambda: client):
            assert client_getter(source, "get")() is client

    def test_pools_that_start_later(self) -> None:
        """The client is looked up for each use, and never before."""
        pool = Pool()
        getters = client_getter(pool), client_getter(Manager(pool))

        for client in (Client(), Client()):
            pool.client = client
            assert [get() for get in getters] == [client, client]

        pool.client = None

        for get in getters:
            with pytest.raises(LookupError, match="not started"):
                get()

    @pytest.mark.parametrize("wrong", ["redis://:hunter2@host/0", None, 7, Client, Client()])
    def test_anything_else(self, wrong: object) -> None:
        """It is refused at once, and a password in it is not shown."""
        with pytest.raises(ConfigError, match="a pool, a manager of pools") as caught:
            client_getter(wrong, "set")

        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://:12#word@h/0", "must not have #"),
        ("redis://h,g", "names one host"),
        ("redis://h/1?db=2", "has db twice"),
        ("redis://h?db=1&db=2", "has db twice"),
        ("redis://u:p@h?username=v", "has username twice"),
        ("unix://run/redis.sock", "three slashes"),
    ],
)
def test_what_redis_py_leaves_out_of_a_url(url: str, reason: str) -> None:
    """It would be another server, database, user or password, and nobody would know."""
    assert reason in str(unread_in_redis_url(url))


@pytest.mark.parametrize("url", ["redis://u:p@h:1/2?timeout=5", "unix:///run/redis.sock?db=1", "rediss://h"])
def test_what_redis_py_reads_of_a_url(url: str) -> None:
    """All of it."""
    assert unread_in_redis_url(url) is None
