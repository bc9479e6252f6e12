"""The servers of our own do what other tests rely on."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest

from tests.servers import StartServer
from tools.servers import (
    ClusterServers,
    CommandError,
    MariaDBServer,
    MissingBinary,
    MongoServer,
    PortReservation,
    PostgresServer,
    RedisConnection,
    RedisServer,
    SentinelServers,
    Server,
    ServerError,
    ValkeyServer,
    _process,
    wait_until,
)


class TestRedis:
    """`RedisServer` and `ValkeyServer`."""

    @pytest.mark.parametrize("kind", [RedisServer, ValkeyServer])
    def test_restart_keeps_port_and_data(self, start_server: StartServer, kind: type[RedisServer]) -> None:
        """An orderly restart keeps port and data, even without persistence."""
        server = start_server(kind)
        port = server.port
        server.command("SET", "key", "välue")

        server.restart()

        assert (server.port, server.command("GET", "key")) == (port, "välue")

    def test_kill_loses_what_was_not_written(self, start_server: StartServer) -> None:
        """SIGKILL loses the data of a server without persistence, and the port stays."""
        server = start_server(RedisServer)
        port, pid = server.port, server.pid
        server.command("SET", "key", "value")

        server.kill()

        assert not server.running
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(server.address, 1.0)

        server.restart()

        assert (server.port, server.command("GET", "key")) == (port, None)
        assert server.pid != pid

    def test_kill_keeps_an_append_only_file(self, start_server: StartServer) -> None:
        """With an append-only file synced always, SIGKILL loses nothing."""
        server = start_server(RedisServer, config={"appendonly": "yes", "appendfsync": "always"})
        server.command("SET", "key", "value")

        server.kill()
        server.restart()

        assert server.command("GET", "key") == "value"

    def test_pause_silences_and_resume_continues(self, start_server: StartServer) -> None:
        """A paused server accepts and does not answer; resumed, it answers what was sent."""
        server = start_server(RedisServer)
        server.pause()

        with pytest.raises(TimeoutError):
            server.command("PING", timeout=0.1)

        server.resume()

        assert server.command("PING") == "PONG"

    def test_unix_socket_and_password(self, start_server: StartServer) -> None:
        """A unix socket and a password are there when asked for, and in the URLs."""
        server = start_server(RedisServer, unix_socket=True, config={"requirepass": "a/b"})

        assert Path(server.unix_path).is_socket()
        assert server.url == f"redis://:a%2Fb@127.0.0.1:{server.port}/0"
        assert server.command("PING") == "PONG"

    def test_a_connection_that_fails_is_closed(self, start_server: StartServer, tmp_path: Path) -> None:
        """One that is not made, or not logged in, leaves no socket to be warned about later."""
        server = start_server(RedisServer, config={"requirepass": "secret"})
        server.pause()

        with pytest.raises(TimeoutError):
            server.command("PING", timeout=0.1)

        with pytest.raises(ConnectionResetError):
            RedisConnection(path=str(tmp_path / "socket"))

        gc.collect()

    def test_several_lines_of_one_name(self, start_server: StartServer) -> None:
        """A sequence in the configuration becomes several lines."""
        server = start_server(
            RedisServer, config={"rename-command": ["FLUSHDB hidden-1", "FLUSHALL hidden-2"]}
        )

        with pytest.raises(CommandError, match="unknown command"):
            server.command("FLUSHALL")

        assert server.command("hidden-2") == "OK"

    def test_bad_configuration_shows_the_log(self) -> None:
        """A server that does not come up raises an error that holds its log."""
        server = RedisServer(config={"no-such-setting": "1"})

        with pytest.raises(ServerError, match="no-such-setting"):
            server.start()

        assert server.folder is None

    def test_use_of_an_ended_server(self, start_server: StartServer) -> None:
        """A command to an ended server says that a test must take a server of its own."""
        server = start_server(RedisServer)
        server.kill()

        with pytest.raises(ServerError, match="start_server"):
            server.command("PING")

        with pytest.raises(ServerError, match="not running"):
            _ = server.pid

    def test_stop_removes_the_folder(self, start_server: StartServer) -> None:
        """Stopping twice is fine and leaves no folder."""
        server = start_server(RedisServer)
        folder = server.folder
        assert folder is not None

        server.pause()
        server.stop()
        server.stop()

        assert not folder.exists()

    def test_replies(self, redis_server: RedisServer, redis_url: str) -> None:
        """Replies of each RESP2 type come as Python values; errors inside a list are not raised."""
        with redis_server.connect() as connection:
            assert connection("RPUSH", "list", "a", b"\xff", 3) == 3
            assert connection("LRANGE", "list", 0, -1) == ["a", "\udcff", "3"]
            assert connection("MULTI") == "OK"
            assert connection("GET", "list") == "QUEUED"
            assert connection("BLPOP", "nothing", 1) == "QUEUED"
            first, second = connection("EXEC")
            assert "wrong kind of value" in str(first)
            assert second is None


class TestPostgres:
    """`PostgresServer`."""

    async def test_it_starts_again_after_a_kill(self, start_server: StartServer) -> None:
        """Its backends have ended by then, paused ones too: a new postmaster refuses to start beside them."""
        server = start_server(PostgresServer)

        for number in range(10):
            connections = [await asyncpg.connect(server.url) for _ in range(6)]

            if number % 3 == 0:
                server.pause()

            server.kill()
            server.restart()

            for connection in connections:
                connection.terminate()

        assert server.execute("SELECT 1") == [("1",)]


class TestMariaDB:
    """`MariaDBServer`."""

    def test_commit_survives_a_kill(self, start_server: StartServer) -> None:
        """A committed row is there after SIGKILL and restart on the same port."""
        server = start_server(MariaDBServer)
        server.execute("CREATE TABLE t (a INT)", "INSERT INTO t VALUES (5), (NULL)", database="test")
        port = server.port

        server.kill()
        server.restart()

        assert server.port == port
        assert server.execute("SELECT a FROM t ORDER BY a", database="test") == [(None,), ("5",)]

        server.restart()

        assert server.execute("SELECT COUNT(*) FROM t", database="test") == [("2",)]

    def test_options(self, start_server: StartServer) -> None:
        """Server options are passed on."""
        server = start_server(MariaDBServer, config={"max-connections": 20})

        assert server.execute("SELECT @@max_connections") == [("20",)]

    def test_errors_and_long_values(self, mariadb_server: MariaDBServer) -> None:
        """The server's errors are raised with their number; long values come whole."""
        with pytest.raises(CommandError, match=r"ProgrammingError: \(1064,"):
            mariadb_server.execute("SELEC 1")

        assert mariadb_server.execute("SELECT REPEAT('x', 300)") == [("x" * 300,)]

    def test_use_of_an_ended_server(self) -> None:
        """A statement to a server that does not run says what to do."""
        with pytest.raises(ServerError, match="start_server"):
            MariaDBServer().execute("SELECT 1")

    def test_each_test_has_its_own_database_first(
        self, mariadb_server: MariaDBServer, mysql_url: str
    ) -> None:
        """The database of the fixture is empty."""
        database = mysql_url.rpartition("/")[2]
        mariadb_server.execute("CREATE TABLE same (a INT)", database=database)

    def test_each_test_has_its_own_database_second(
        self, mariadb_server: MariaDBServer, mysql_url: str
    ) -> None:
        """Another test's table is not there."""
        database = mysql_url.rpartition("/")[2]
        mariadb_server.execute("CREATE TABLE same (a INT)", database=database)


class TestSentinel:
    """`SentinelServers`."""

    def test_failover_by_request_and_by_death(self, start_server: StartServer) -> None:
        """A fail-over is seen by all Sentinels, asked for or after the master's death."""
        servers = start_server(SentinelServers)
        first = servers.master
        assert servers.url.endswith("/mymaster/0")
        assert first in servers.redis

        servers.failover()
        second = servers.master
        assert second is not first
        servers.wait_settled()

        servers.kill()
        servers.wait_failover(second)
        assert servers.master is first


class TestCluster:
    """`ClusterServers`."""

    @pytest.mark.parametrize("valkey", [False, True])
    def test_a_slot_moves_in_steps(self, start_server: StartServer, valkey: bool) -> None:
        """In mid-move the source answers ASK for a key that has gone, and MOVED afterwards."""
        cluster = start_server(ClusterServers, valkey=valkey)
        key = "user:1"
        source = cluster.node_of_key(key)
        source.command("SET", key, "value")
        move = cluster.move_slot(cluster.slot_of(key))

        move.begin()
        assert source.command("GET", key) == "value"

        assert move.move_keys() == 1
        with pytest.raises(CommandError, match=f"^AskError: .*{move.target.port}"):
            source.command("GET", key)

        move.finish()
        with pytest.raises(CommandError, match=f"^MovedError: .*{move.target.port}"):
            source.command("GET", key)

        assert move.target.command("GET", key) == "value"
        cluster.flush()
        assert move.target.command("DBSIZE") == 0

    def test_a_node_that_is_slow_to_join(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A node that was too busy to answer, so that the one it met has forgotten it, is met again."""
        cluster = ClusterServers(config={"cluster-node-timeout": 500})
        first, slow = cluster.nodes[:2]
        command = first.command
        meetings = 0

        def watch(*args: str | bytes | float, timeout: float = 10.0) -> object:
            nonlocal meetings

            if args[:2] == ("CLUSTER", "MEET") and args[3] == slow.port:
                meetings += 1
                (slow.pause if meetings == 1 else slow.resume)()

            return command(*args, timeout=timeout)

        monkeypatch.setattr(first, "command", watch)

        with cluster:
            assert meetings >= 2

    def test_replicas_and_restart(self, start_server: StartServer) -> None:
        """Replicas follow their masters; all nodes come back on their ports."""
        cluster = start_server(ClusterServers, replicas=1)
        ports = [node.port for node in cluster.nodes]
        assert [node.info("replication")["role"] for node in cluster.nodes] == ["master"] * 3 + ["slave"] * 3

        cluster.kill()
        cluster.restart()

        assert [node.port for node in cluster.nodes] == ports


def test_mongo(start_server: StartServer) -> None:
    """The server with MongoDB's protocol comes back on the same port after SIGKILL."""
    server = start_server(MongoServer)
    url = server.url

    server.kill()
    server.restart()

    assert server.url == url


class TestProcesses:
    """What `Server` does for all of them."""

    def test_servers_die_with_their_parent(self) -> None:
        """When the process that started a server is killed, the server ends too; the next run cleans up."""
        program = (
            "import sys, time, threading\n"
            "from tools.servers import RedisServer\n"
            "server = RedisServer()\n"
            "thread = threading.Thread(target=server.start)\n"  # its end must not end the server
            "thread.start(); thread.join()\n"
            "assert server.command('PING') == 'PONG'\n"
            "print(server.port, server.pid, server.folder, flush=True)\n"
            "time.sleep(60)\n"
        )
        root = Path(__file__).resolve().parents[2]

        with subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE) as parent:
            assert parent.stdout is not None
            port, pid, folder = parent.stdout.readline().split()
            parent.kill()

        def gone() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", int(port))) != 0 and not _is_alive(int(pid))

        wait_until(gone, "the server has gone")
        _process._sweep.cache_clear()
        _process._sweep()
        assert not Path(folder.decode()).exists()

    def test_a_normal_exit_leaves_no_folder(self) -> None:
        """A process that ends without stopping its server leaves nothing behind."""
        program = (
            "from tools.servers import RedisServer\n"
            "server = RedisServer()\n"
            "server.start()\n"
            "print(server.folder)\n"
        )
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run(
            [sys.executable, "-c", program], check=False, cwd=root, capture_output=True, text=True
        )

        assert done.returncode == 0, done.stderr
        assert not Path(done.stdout.strip()).exists()

    def test_a_server_that_ends_before_it_is_stopped(
        self, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Stopping a server that has just died removes its folder, whatever was thought of it before."""
        server = start_server(RedisServer)
        folder = server.folder
        assert folder is not None
        server.kill()
        monkeypatch.setattr(RedisServer, "running", True)  # what somebody saw a moment ago

        server.stop()

        assert not folder.exists()

    def test_a_server_that_ends_before_it_is_shut_down(self, start_server: StartServer) -> None:
        """A server that has just died needs no shutting down, and can be started again."""
        server = start_server(RedisServer)
        server.kill()
        server._shut_down()
        server.start()

        assert server.command("PING") == "PONG"

    def test_a_taken_port_is_not_used(
        self, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When a stranger took the chosen port meanwhile, another one is tried."""
        first = start_server(RedisServer)
        ports = iter([first.port])
        original = RedisServer._choose_ports

        def choose(self: RedisServer) -> None:
            original(self)
            self.port = next(ports, self.port)

        monkeypatch.setattr(RedisServer, "_choose_ports", choose)

        second = start_server(RedisServer)

        assert second.port != first.port
        assert second.command("PING") == "PONG"

    def test_missing_program(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A missing program is named with the line that installs it."""
        monkeypatch.setattr("shutil.which", lambda *_args, **_options: None)

        with pytest.raises(MissingBinary, match="apt-get install -y redis-server"):
            RedisServer().start()

    def test_a_server_that_never_serves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A server that does not serve in time is ended, and the error says so."""
        monkeypatch.setattr(RedisServer, "start_timeout", 0.05)
        monkeypatch.setattr(RedisServer, "_is_ready", lambda _self: False)

        with pytest.raises(ServerError, match=r"did not serve within 0\.05 s"):
            RedisServer().start()

    def test_base_class(self) -> None:
        """The base class is not a server."""
        server = Server()

        assert repr(server) == "<Server 127.0.0.1:0 not running>"
        assert server.log() == ""
        with pytest.raises(NotImplementedError):
            _ = server.url


def test_ports_are_reserved_for_one() -> None:
    """A reserved port is given to nobody else until it is released."""
    with PortReservation() as one, PortReservation() as other:
        assert one.port != other.port
        one.release()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False

    # A zombie whose parent has not looked yet has ended all the same.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
