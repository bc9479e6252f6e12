"""The proxy does each fault exactly where the test says, to real servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from redis.connection import Connection

from tests.servers import StartServer
from tools.servers import MariaDBServer, RedisServer, connect_mysql, query, wait_until
from ws_core._fault_proxy.proxied import _reset
from ws_core.testing import FaultProxy, Then

encode = Connection().pack_command


class Client:
    """A Redis client of some lines, with nothing that repairs or hides."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *args: str | int) -> None:
        """Send a command."""
        self.writer.writelines(encode(*args))

    async def line(self, seconds: float = 20.0) -> bytes:
        """Read one line; empty at the end of the stream."""
        return await asyncio.wait_for(self.reader.readline(), seconds)

    async def __call__(self, *args: str | int) -> bytes:
        """Send a command whose reply is one line; return that."""
        self.send(*args)
        return await self.line()


@contextlib.asynccontextmanager
async def connected(proxy: FaultProxy) -> AsyncIterator[Client]:
    """Connect a client and close it."""
    reader, writer = await asyncio.open_connection(*proxy.address)

    try:
        yield Client(reader, writer)
    finally:
        writer.close()

        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.fixture
async def proxy(redis_server: RedisServer, redis_url: str) -> AsyncIterator[FaultProxy]:
    """Yield a proxy before the shared Redis, which is empty."""
    async with FaultProxy(redis_server.host, redis_server.port) as proxy:
        yield proxy


async def until_closed(proxy: FaultProxy) -> None:
    """Wait until the proxy has no connections."""
    async with asyncio.timeout(20):
        while proxy.open_connections:
            await asyncio.sleep(0.005)


class TestPassing:
    """Without faults."""

    async def test_bytes_pass_and_are_counted(self, proxy: FaultProxy) -> None:
        """Pipelined requests pass in both directions, and all is counted."""
        async with connected(proxy) as client:
            for number in range(100):
                client.send("INCRBY", "n", number)

            lines = [await client.line() for _ in range(100)]

        await until_closed(proxy)
        assert lines[-1] == b":4950\r\n"
        assert (proxy.connections, proxy.requests, proxy.replies) == (1, 100, 100)
        assert proxy.counters.bytes_to_client == sum(map(len, lines))
        assert proxy.counters.bytes_to_server > 0
        assert "requests=100" in repr(proxy)

    async def test_a_large_value_passes(self, proxy: FaultProxy) -> None:
        """A value of many chunks passes whole."""
        value = "x" * 3_000_000

        async with connected(proxy) as client:
            assert await client("SET", "k", value) == b"+OK\r\n"
            assert await client("GET", "k") == b"$3000000\r\n"
            assert await client.reader.readexactly(3_000_002) == value.encode() + b"\r\n"

    async def test_unix_socket(self, redis_server: RedisServer, redis_url: str) -> None:
        """The server may be behind a unix socket."""
        async with FaultProxy(redis_server.unix_path) as proxy, connected(proxy) as client:
            assert await client("PING") == b"+PONG\r\n"

    async def test_raw(self, redis_server: RedisServer, redis_url: str) -> None:
        """In raw mode a chunk is a request, whatever it holds."""
        async with FaultProxy(*redis_server.address, protocol="raw") as proxy, connected(proxy) as client:
            client.writer.writelines(encode("PING") * 2)
            assert [await client.line(), await client.line()] == [b"+PONG\r\n"] * 2
            assert proxy.requests == 1

    async def test_the_end_of_a_server_is_passed_on(self, start_server: StartServer) -> None:
        """When the server dies, its clients see it; new ones are reset until it is back."""
        server = start_server(RedisServer)

        async with FaultProxy(*server.address) as proxy:
            async with connected(proxy) as client:
                await client("PING")
                server.kill()
                assert await client.line() == b""

            async with connected(proxy) as client:
                with pytest.raises(ConnectionResetError):
                    await client.line()

            server.restart()

            async with connected(proxy) as client:
                assert await client("PING") == b"+PONG\r\n"

    async def test_a_reset_is_passed_on_as_a_reset(self) -> None:
        """A server that resets its connection resets the client's, and the other way round."""
        ended: asyncio.Queue[object] = asyncio.Queue()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                if await reader.readline() == b"reset\n":
                    _reset(writer)

                await ended.put(await reader.read())
            except ConnectionResetError as error:
                await ended.put(error)
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)

        async with server, FaultProxy(*server.sockets[0].getsockname(), protocol="raw") as proxy:
            async with connected(proxy) as client:
                client.writer.write(b"reset\n")

                with pytest.raises(ConnectionResetError):
                    await client.line()

            await ended.get()

            async with connected(proxy) as client:
                reached = proxy.reached()
                client.writer.write(b"stay\n")
                await reached.wait()
                _reset(client.writer)

            assert isinstance(await asyncio.wait_for(ended.get(), 20), ConnectionResetError)

    async def test_an_incomplete_request_is_passed_on_at_the_end(self, proxy: FaultProxy) -> None:
        """Half a command reaches the server when the client ends behind it."""
        async with connected(proxy) as client:
            client.writer.write(b"*1\r\n$4\r\nPI")
            client.writer.write_eof()
            assert await client.line() == b""

        assert proxy.counters.bytes_to_server == 10

    async def test_urls(self, proxy: FaultProxy) -> None:
        """A server's URL is turned into the proxy's."""
        assert (
            proxy.url("redis://u:p%40@localhost:6379/2?a=b")
            == f"redis://u:p%40@{proxy.host}:{proxy.port}/2?a=b"
        )

    async def test_close_ends_connections(self, proxy: FaultProxy) -> None:
        """After close nobody listens, and connections have ended."""
        async with connected(proxy) as client:
            await client("PING")
            await proxy.close()
            assert await client.line() == b""

            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*proxy.address)


class TestLostReplies:
    """`drop_reply`, `truncate_reply` and `drop_request`."""

    @pytest.mark.parametrize("then", ["close", "cut", "silence"])
    async def test_the_server_acts_and_the_client_learns_nothing(
        self, proxy: FaultProxy, redis_server: RedisServer, then: Then
    ) -> None:
        """The third request is done, its reply lost, and the connection ends as chosen."""
        async with connected(proxy) as client:
            await client("INCR", "n")
            lost = proxy.drop_reply(2, then=then)
            assert await client("INCR", "n") == b":2\r\n"
            assert not lost.is_set()
            client.send("INCR", "n")
            await lost.wait()

            if then == "cut":
                with pytest.raises(ConnectionResetError):
                    await client.line()
            elif then == "close":
                assert await client.line() == b""
            else:
                with pytest.raises(TimeoutError):
                    await client.line(0.05)

        assert redis_server.command("GET", "n") == "3"
        assert (proxy.counters.lost_replies, proxy.replies) == (1, 3)

    async def test_only_one_reply_is_lost(self, proxy: FaultProxy) -> None:
        """With "continue" the later replies of the connection arrive."""
        proxy.drop_reply(2, then="continue")

        async with connected(proxy) as client:
            for _ in range(3):
                client.send("INCR", "n")

            assert [await client.line(), await client.line()] == [b":1\r\n", b":3\r\n"]

    async def test_earlier_replies_of_a_pipeline_arrive(
        self, proxy: FaultProxy, redis_server: RedisServer
    ) -> None:
        """Of 500 pipelined requests exactly those before the lost one are answered."""
        proxy.drop_reply(321)

        async with connected(proxy) as client:
            for _ in range(500):
                client.send("INCR", "n")

            lines = (await asyncio.wait_for(client.reader.read(), 20)).splitlines()

        assert lines == [b":%d" % number for number in range(1, 321)]
        assert int(str(redis_server.command("GET", "n"))) >= 321

    async def test_requests_are_counted_over_all_connections_by_name(self, proxy: FaultProxy) -> None:
        """Only requests of the name count, whichever connection they come from."""
        async with connected(proxy) as one, connected(proxy) as other:
            lost = proxy.drop_reply(2, match="incr", then="continue")
            await one("INCR", "n")
            await other("PING")
            other.send("INCR", "n")
            await lost.wait()
            assert await other("PING") == b"+PONG\r\n"

    async def test_a_truncated_reply(self, proxy: FaultProxy, redis_server: RedisServer) -> None:
        """Half of the reply arrives, then the stream ends."""
        redis_server.command("SET", "k", "abcdef")

        async with connected(proxy) as client:
            cut = proxy.truncate_reply(1)
            client.send("GET", "k")
            assert await asyncio.wait_for(client.reader.read(), 20) == b"$6\r\nab"
            assert cut.is_set()

    @pytest.mark.parametrize("then", ["close", "silence"])
    async def test_a_lost_request(self, proxy: FaultProxy, redis_server: RedisServer, then: Then) -> None:
        """The request and all behind it never reach the server; those before it do."""
        async with connected(proxy) as client:
            lost = proxy.drop_request(2, then=then)

            for key in ("a", "b", "c"):
                client.send("SET", key, "1")

            await lost.wait()
            assert await client.line() == b"+OK\r\n"

        assert redis_server.command("KEYS", "*") == ["a"]
        assert proxy.counters.lost_requests == 1

    async def test_a_request_lost_alone(self, proxy: FaultProxy, redis_server: RedisServer) -> None:
        """With "continue" the other requests pass, and their replies are matched rightly."""
        proxy.drop_request(1, then="continue")
        proxy.drop_reply(3, then="continue")

        async with connected(proxy) as client:
            for key in ("a", "b", "c", "d"):
                client.send("INCR", key)

            assert [await client.line(), await client.line()] == [b":1\r\n", b":1\r\n"]

        assert sorted(str(key) for key in redis_server.command("KEYS", "*") or []) == ["b", "c", "d"]

    async def test_a_bad_number(self, proxy: FaultProxy) -> None:
        """There is no request number 0."""
        with pytest.raises(ValueError, match="number 1, not 0"):
            proxy.drop_reply(0)

    async def test_mysql(self, mariadb_server: MariaDBServer, mysql_url: str) -> None:
        """A reply of many packets is lost whole; the statement has been done."""
        database = mysql_url.rpartition("/")[2]
        mariadb_server.execute("CREATE TABLE t (a INT)", database=database)

        async with FaultProxy(*mariadb_server.address, protocol="mysql") as proxy:

            def client() -> None:
                with contextlib.closing(connect_mysql(*proxy.address)) as connection:
                    query(connection, f"USE {database}")
                    query(connection, "INSERT INTO t VALUES (1)")
                    assert len(query(connection, "SELECT seq FROM seq_1_to_2000")) == 2000

                    with pytest.raises(ConnectionResetError):
                        query(connection, "INSERT INTO t VALUES (2)")

            lost = proxy.drop_reply(5, match="QUERY")  # PyMySQL has set the names by then
            await asyncio.to_thread(client)
            assert lost.is_set()
            assert (proxy.requests, proxy.replies) == (5, 5)

        assert mariadb_server.execute("SELECT COUNT(*) FROM t", database=database) == [("2",)]


class TestConnections:
    """`cut`, `half_close`, `black_hole`, `refuse`, `heal`."""

    async def test_cut(self, proxy: FaultProxy) -> None:
        """Present connections are reset; new ones are served."""
        async with connected(proxy) as client:
            await client("PING")
            proxy.cut()

            with pytest.raises(ConnectionResetError):
                await client.line()

        async with connected(proxy) as client:
            assert await client("PING") == b"+PONG\r\n"

    async def test_half_close_to_the_client(self, proxy: FaultProxy, redis_server: RedisServer) -> None:
        """The client sees the end; what it sends still reaches the server."""
        async with connected(proxy) as client:
            await client("PING")
            proxy.half_close(to="client")
            assert await client.line() == b""
            reached = proxy.reached(match="SET")
            client.send("SET", "k", "v")
            await reached.wait()
            await asyncio.to_thread(wait_until, lambda: redis_server.command("GET", "k") == "v", "k is v")

    async def test_half_close_to_the_server(self, proxy: FaultProxy) -> None:
        """The server sees the end and closes, and its client learns of that."""
        async with connected(proxy) as client:
            await client("PING")
            proxy.half_close(to="server")
            assert await client.line() == b""

    async def test_black_hole_and_heal(self, proxy: FaultProxy, redis_server: RedisServer) -> None:
        """Bytes vanish; after healing, connections that lost some are reset and others go on."""
        async with connected(proxy) as idle, connected(proxy) as busy:
            await idle("PING")
            await busy("PING")
            proxy.black_hole()
            busy.send("SET", "k", "v")

            async with connected(proxy) as new, connected(proxy) as quiet:
                new.send("SET", "k", "v")

                for client in (idle, busy, new):
                    with pytest.raises(TimeoutError):
                        await client.line(0.05)

                assert redis_server.command("EXISTS", "k") == 0
                proxy.heal()

                for client in (busy, new):
                    with pytest.raises(ConnectionResetError):
                        await client.line()

                assert await idle("PING") == b"+PONG\r\n"
                assert await quiet("PING") == b"+PONG\r\n"

    async def test_a_black_hole_hides_both_ends(self, start_server: StartServer) -> None:
        """Neither side learns that the other has ended; after healing both do."""
        server = start_server(RedisServer)

        async with FaultProxy(*server.address) as proxy:
            async with connected(proxy) as client, connected(proxy) as leaving:
                await client("PING")
                await leaving("PING")
                proxy.black_hole()
                leaving.writer.close()
                assert (
                    int(server.info("clients")["connected_clients"]) == 3
                )  # these two and the one that asks
                server.kill()

                with pytest.raises(TimeoutError):
                    await client.line(0.05)

                proxy.heal()
                assert await client.line() == b""

            await until_closed(proxy)

    async def test_refuse(self, proxy: FaultProxy) -> None:
        """New connections are refused and old ones go on, until healed on the same port."""
        port = proxy.port

        async with connected(proxy) as client:
            await client("PING")
            proxy.refuse()
            proxy.refuse()

            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*proxy.address)

            assert await client("PING") == b"+PONG\r\n"
            proxy.heal()
            assert proxy.port == port

            async with connected(proxy) as new:
                assert await new("PING") == b"+PONG\r\n"


class TestTime:
    """`delay`, `throttle`, `hold`."""

    async def test_delay_keeps_order_and_does_not_add_up(self, proxy: FaultProxy) -> None:
        """Late pieces arrive in their order, and not before their time."""
        loop = asyncio.get_running_loop()
        proxy.delay(0.05, jitter=0.02, to="client")

        async with connected(proxy) as client:
            begin = loop.time()

            for _ in range(50):
                client.send("INCR", "n")
                await asyncio.sleep(0)

            assert [await client.line() for _ in range(50)] == [
                b":%d\r\n" % number for number in range(1, 51)
            ]
            assert loop.time() - begin >= 0.05

            proxy.delay(60.0)
            client.send("INCR", "n")
            client.send("INCR", "n")

            with pytest.raises(TimeoutError):
                await client.line(0.05)

            proxy.heal()
            assert [await client.line(), await client.line()] == [b":51\r\n", b":52\r\n"]

    async def test_throttle(self, proxy: FaultProxy, redis_server: RedisServer) -> None:
        """Bytes are not faster than the limit; healing frees what is on its way."""
        redis_server.command("SET", "k", "x" * 1000)
        redis_server.command("SET", "long", "x" * 100_000)
        loop = asyncio.get_running_loop()
        proxy.throttle(10_000, to="client")

        async with connected(proxy) as client:
            begin = loop.time()
            client.send("GET", "k")
            await client.reader.readexactly(1009)
            assert loop.time() - begin >= 0.08

            client.send("GET", "long")
            await client.line()
            proxy.heal()
            await asyncio.wait_for(client.reader.readexactly(100_002), 9)

    async def test_hold_and_release(self, proxy: FaultProxy, redis_server: RedisServer) -> None:
        """Held replies wait for the word, whatever happens meanwhile."""
        async with connected(proxy) as client:
            await client("PING")
            proxy.hold()
            reached = proxy.reached(match="INCR")
            client.send("INCR", "n")
            await reached.wait()

            with pytest.raises(TimeoutError):
                await client.line(0.05)

            await asyncio.to_thread(wait_until, lambda: redis_server.command("GET", "n") == "1", "n is 1")
            proxy.release()
            assert await client.line() == b":1\r\n"

            proxy.hold(to="server")
            client.send("INCR", "n")

            with pytest.raises(TimeoutError):
                await client.line(0.05)

            assert redis_server.command("GET", "n") == "1"
            proxy.release(to="server")
            assert await client.line() == b":2\r\n"

    async def test_close_with_bytes_held(self, proxy: FaultProxy) -> None:
        """Closing does not wait for held or late bytes."""
        proxy.hold(to="both")

        async with connected(proxy) as client:
            client.send("PING")
            await client.writer.drain()
            await proxy.close()

            with contextlib.suppress(ConnectionResetError):  # its kernel may not have passed all on
                assert await client.line() == b""

    async def test_a_cut_with_bytes_held(self, proxy: FaultProxy) -> None:
        """A connection that is cut does not linger for its held bytes."""
        async with connected(proxy) as client:
            await client("PING")
            proxy.hold(to="client")
            reached = proxy.reached()
            client.send("PING")
            await reached.wait()
            proxy.cut()

            with pytest.raises(ConnectionResetError):
                await client.line()

            await until_closed(proxy)


async def test_many_connections_under_faults_leave_nothing(proxy: FaultProxy) -> None:
    """After 200 connections with lost replies and cuts, no connection is left and every count agrees."""

    async def worker(number: int) -> None:
        for _ in range(10):
            async with connected(proxy) as client:
                with contextlib.suppress(OSError):
                    for _ in range(5):
                        if not await client("ECHO", f"{number}"):
                            break

                        assert (await client.line()) == b"%d\r\n" % number

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(worker(number)) for number in range(20)]

        while not all(task.done() for task in tasks):
            proxy.drop_reply(7, then="cut")
            proxy.drop_request(5, then="close")
            await asyncio.sleep(0.005)

    await until_closed(proxy)
    assert proxy.connections == 200
    assert proxy.counters.lost_replies > 0
    assert proxy.counters.lost_requests > 0
