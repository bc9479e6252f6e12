"""The fixtures give what `tests.servers` promises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from pymysql.connections import Connection

from tests.servers import StartServer
from tools.servers import (
    ClusterServers,
    MongoServer,
    RedisConnection,
    RedisServer,
    SentinelServers,
    ValkeyServer,
    connect_mysql,
    query,
)


@pytest.mark.parametrize("turn", [1, 2])
class TestEmptied:
    """What one test leaves behind, the next does not find."""

    def test_redis(self, redis_server: RedisServer, redis_url: str, turn: int) -> None:
        """Redis is empty, on TCP and on its unix socket."""
        assert redis_url == redis_server.url
        assert redis_server.unix_url == f"unix://{redis_server.unix_path}?db=0"

        with RedisConnection(path=redis_server.unix_path) as connection:
            assert connection("SET", "key", turn, "NX") == "OK"

    def test_valkey(self, valkey_server: ValkeyServer, valkey_url: str, turn: int) -> None:
        """Valkey is empty."""
        assert valkey_url == valkey_server.url
        assert valkey_server.command("SET", "key", turn, "NX") == "OK"

    def test_either(self, any_redis: RedisServer, any_redis_url: str, turn: int) -> None:
        """Redis and Valkey are empty."""
        assert any_redis_url == any_redis.url
        assert any_redis.command("SET", "key", turn, "NX") == "OK"

    def test_cluster(self, cluster_servers: ClusterServers, cluster_url: str, turn: int) -> None:
        """The cluster is empty and whole; a moved slot stays usable for the next test."""
        assert cluster_url == cluster_servers.url
        assert cluster_servers.node_of_key("key").command("SET", "key", turn, "NX") == "OK"
        move = cluster_servers.move_slot(cluster_servers.slot_of("key"), cluster_servers.masters[turn % 3])

        if move.source is not move.target:
            move.run()

    def test_sentinel(self, sentinel_servers: SentinelServers, sentinel_url: str, turn: int) -> None:
        """The master is empty, whichever it is after a fail-over."""
        assert f"{sentinel_servers.host}:{sentinel_servers.port}" in sentinel_url
        assert sentinel_servers.master.command("SET", "key", turn, "NX") == "OK"
        assert sentinel_servers.pid == sentinel_servers.master.pid
        sentinel_servers.failover()

    def test_mongo(self, mongo_server: MongoServer, mongo_url: str, turn: int) -> None:
        """No other test uses the database."""
        assert mongo_url.startswith(mongo_server.url)
        assert urlsplit(mongo_url).path not in _seen
        _seen.add(urlsplit(mongo_url).path)

    def test_mysql_leftovers(self, mysql_url: str, turn: int) -> None:
        """A connection that is still in a transaction does not keep the database from being dropped."""
        parts = urlsplit(mysql_url)
        connection = connect_mysql(str(parts.hostname), int(parts.port or 0))
        _leftovers.append(connection)

        for statement in (f"USE {parts.path[1:]}", "CREATE TABLE t (a INT)", "BEGIN", "SELECT a FROM t"):
            query(connection, statement)


_seen: set[str] = set()
_leftovers: list[Connection[Any]] = []


@pytest.fixture(scope="module", autouse=True)
def _close_leftovers() -> Iterator[None]:
    yield
    for connection in _leftovers:
        connection.close()


def test_groups_are_killed_paused_and_restarted(start_server: StartServer) -> None:
    """A whole cluster, or the master of a Sentinel set-up, can be paused, killed and brought back."""
    cluster = start_server(ClusterServers)
    cluster.pause()

    with pytest.raises(TimeoutError):
        cluster.nodes[1].command("PING", timeout=0.1)

    cluster.resume()
    assert cluster.nodes[1].command("PING") == "PONG"
    assert (cluster.host, cluster.port, cluster.pid) == (*cluster.nodes[0].address, cluster.nodes[0].pid)

    servers = start_server(SentinelServers, down_after=60.0)
    master = servers.master
    servers.pause()

    with pytest.raises(TimeoutError):
        master.command("PING", timeout=0.1)

    servers.resume()
    servers.kill()
    servers.restart()
    assert servers.master is master
    assert master.command("PING") == "PONG"
    assert len(servers.replicas) == 1
