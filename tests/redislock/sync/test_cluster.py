"""Threads: a cluster whose nodes fall silent, and whose slots move."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Event, Thread

import pytest
from redis import RedisCluster, exceptions

from tests.redislock._helpers import cluster_client
from tests.redislock._threads import until, waiting_for
from tools.servers import ClusterServers
from ws_redislock.errors import UnavailableError
from ws_redislock.sync import MutexLock, RunClaims
from ws_redislock.sync._concurrency import Nodes


@pytest.fixture
def client(cluster_url: str) -> Iterator[RedisCluster]:
    """Yield a client whose sockets wait for ever."""
    with cluster_client(cluster_url, socket_timeout=None) as client:
        yield client


class TestSilentNode:
    """One node does not answer."""

    def test_an_attempt_ends_in_time(self, client: RedisCluster, cluster_servers: ClusterServers):
        """An acquisition is given up; when the node answers again, it is made."""
        with MutexLock(client, "k", 60).hold():
            pass

        node = cluster_servers.node_of_key("wsl:m:{k}:holders")
        lock = MutexLock(client, "k", 60)
        done = Event()
        errors: list[Exception] = []

        def acquire() -> None:
            try:
                lock.acquire(0.3)
            except UnavailableError as error:
                errors.append(error)

            done.set()

        node.pause()

        try:
            Thread(target=acquire, daemon=True).start()
            assert done.wait(20)  # the driver alone would wait for ever
            assert "no reply in time" in str(errors[0])
        finally:
            node.resume()

        until(lambda: not lock.exists())  # what came late was undone
        assert lock.acquire(5)
        assert lock.release()
        lock.close()

    def test_a_lease_is_renewed_afterwards(self, client: RedisCluster, cluster_servers: ClusterServers):
        """A silence that is shorter than the lease costs nothing: the next renewal is on time."""
        with MutexLock(client, "k", 3).hold() as held:
            node = cluster_servers.node_of_key("wsl:m:{k}:holders")
            deadline = held._lease.deadline
            node.pause()

            try:
                time.sleep(1.6)  # the first renewal, after 1 s, has ended without a reply
            finally:
                node.resume()

            until(lambda: held._lease.deadline > deadline or held.lost)
            held.check()


class TestRedirections:
    """The driver's map of slots is not what it was."""

    def test_the_slot_moves(self, client: RedisCluster, cluster_servers: ClusterServers):
        """The lease goes on, on the node that has the slot now, and the waiter is served."""
        lock, other = MutexLock(client, "moving", 60), MutexLock(client, "moving", 60, heartbeat=2)
        assert lock.acquire()
        thread = Thread(target=other.acquire, args=(None,), daemon=True)
        thread.start()
        waiting_for(lock)
        slot = cluster_servers.slot_of("wsl:m:{moving}:holders")
        cluster_servers.move_slot(slot).run()
        assert lock.renew()
        assert lock.release()
        until(lambda: other.locked)
        assert other.release()

    def test_asked_elsewhere(self, client: RedisCluster, cluster_servers: ClusterServers):
        """While a slot moves, what is not there any more is asked for where it goes."""
        slot = cluster_servers.slot_of("wsl:c:{asked}:")
        move = cluster_servers.move_slot(slot)
        move.begin()
        claims = RunClaims(client)
        assert claims.claim("asked", 60)
        assert not claims.claim("asked", 60)
        move.finish()
        assert not claims.claim("asked", 60)

    def test_without_end(self, client: RedisCluster, monkeypatch: pytest.MonkeyPatch):
        """Nodes that send a command from one to the other do not do so for ever."""
        slot = client.keyslot("k")

        def moved(*_: object) -> list[object]:
            calls.append(1)
            raise exceptions.MovedError(f"{slot} 127.0.0.1:{client.get_node_from_key('k').port}")

        calls: list[int] = []
        monkeypatch.setattr("ws_redislock.sync._concurrency.send_all", moved)

        with pytest.raises(exceptions.ConnectionError, match="from one to the other"):
            Nodes(client).send(("PING",), b"k", 1.0)

        assert len(calls) == 5

    def test_an_unknown_node(self, client: RedisCluster, monkeypatch: pytest.MonkeyPatch):
        """A node that the driver does not know is passing trouble."""

        def ask(*_: object) -> list[object]:
            raise exceptions.AskError(f"{client.keyslot('k')} 127.0.0.1:1")

        monkeypatch.setattr("ws_redislock.sync._concurrency.send_all", ask)

        with pytest.raises(exceptions.ConnectionError, match="not known yet"):
            Nodes(client).send(("PING",), b"k", 1.0)

    def test_an_unknown_slot(self, client: RedisCluster, monkeypatch: pytest.MonkeyPatch):
        """A slot that nobody serves is passing trouble."""

        def nobody(_: object) -> None:
            raise exceptions.SlotNotCoveredError("nobody")

        monkeypatch.setattr(client.nodes_manager, "get_node_from_slot", nobody)

        with pytest.raises(exceptions.ConnectionError, match="no node"):
            Nodes(client).send(("PING",), b"k", 1.0)
