"""The fixtures themselves; `tests.servers` says how to use them."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Protocol, TypeVar
from urllib.parse import unquote, urlsplit

import pytest

from tools.servers import (
    ClusterServers,
    CommandError,
    MariaDBServer,
    MongoServer,
    PostgresServer,
    RedisServer,
    SentinelServers,
    Server,
    ValkeyServer,
)

AnyServer = TypeVar("AnyServer", bound=Server | SentinelServers | ClusterServers)
_numbers = itertools.count(1)


class StartServer(Protocol):
    """The type of the fixture ``start_server``."""

    def __call__(self, kind: Callable[..., AnyServer], /, **options: object) -> AnyServer:
        """Start a server with the options of its class; it is stopped when the test ends."""
        ...


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Yield the shared Redis server."""
    with RedisServer(unix_socket=True) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    """Yield the shared Valkey server."""
    with ValkeyServer(unix_socket=True) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDBServer]:
    """Yield the shared MariaDB server."""
    with MariaDBServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Yield the shared PostgreSQL server."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def mongo_server() -> Iterator[MongoServer]:
    """Yield the shared server with MongoDB's protocol."""
    with MongoServer() as server:
        yield server


@pytest.fixture(scope="session")
def sentinel_servers() -> Iterator[SentinelServers]:
    """Yield the shared master and replica with three Sentinels; tests may fail it over."""
    with SentinelServers(down_after=5.0) as servers:  # a busy machine must not fail it over
        yield servers


@pytest.fixture(scope="session")
def cluster_servers() -> Iterator[ClusterServers]:
    """Yield the shared cluster of three masters; tests may move slots."""
    with ClusterServers() as servers:
        yield servers


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """Return the URL of the shared Redis server, emptied."""
    redis_server.command("FLUSHALL")
    return redis_server.url


@pytest.fixture
def valkey_url(valkey_server: ValkeyServer) -> str:
    """Return the URL of the shared Valkey server, emptied."""
    valkey_server.command("FLUSHALL")
    return valkey_server.url


@pytest.fixture(params=["redis", pytest.param("valkey", marks=pytest.mark.once)])
def any_redis(request: pytest.FixtureRequest) -> RedisServer:
    """Return the shared Redis server, then the shared Valkey server, emptied."""
    server: RedisServer = request.getfixturevalue(f"{request.param}_server")
    server.command("FLUSHALL")
    return server


@pytest.fixture
def any_redis_url(any_redis: RedisServer) -> str:
    """Return the URL of Redis, then of Valkey, emptied."""
    return any_redis.url


@pytest.fixture
def cluster_url(cluster_servers: ClusterServers) -> str:
    """Return the URL of the shared cluster's first node, the cluster whole and emptied."""
    cluster_servers.wait_whole()
    cluster_servers.flush()
    return cluster_servers.url


@pytest.fixture
def sentinel_url(sentinel_servers: SentinelServers) -> str:
    """Return the URL of the shared Sentinels, all of them agreed and the master emptied."""
    sentinel_servers.wait_settled()
    sentinel_servers.master.command("FLUSHALL")
    return sentinel_servers.url


@pytest.fixture
def mysql_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the URL of a database made for the test, at the server of WS_TEST_MYSQL_URL if that is set."""
    database = f"test_{next(_numbers)}"

    if outside := os.environ.get("WS_TEST_MYSQL_URL"):
        with _database_at(outside, database) as url:
            yield url

        return

    mariadb_server: MariaDBServer = request.getfixturevalue("mariadb_server")
    mariadb_server.execute(f"CREATE DATABASE {database}")
    yield mariadb_server.database_url(database)

    if mariadb_server.running:
        _drop(mariadb_server, database)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """Yield the URL of a database made for the test."""
    database = f"test_{next(_numbers)}"
    postgres_server.execute(f"CREATE DATABASE {database}")
    yield postgres_server.database_url(database)

    if postgres_server.running:
        postgres_server.execute(f"DROP DATABASE {database} WITH (FORCE)")


@pytest.fixture
def mongo_url(mongo_server: MongoServer) -> str:
    """Return the URL of a database that no other test uses."""
    return f"{mongo_server.url}test_{next(_numbers)}"


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Yield a function that starts servers of a test's own; they are stopped when it ends."""
    with ExitStack() as stack:

        def start(kind: Callable[..., AnyServer], /, **options: object) -> AnyServer:
            server = kind(**options)
            stack.callback(server.stop)
            server.start()
            return server

        yield start


@contextlib.contextmanager
def _database_at(url: str, database: str) -> Iterator[str]:
    """Make a database at a server that is not ours, and drop it at the end."""
    import pymysql

    parts = urlsplit(url)
    name = f"{database}_{os.getpid()}"  # other workers have numbers of their own
    connection = pymysql.connect(
        host=parts.hostname or "localhost",
        port=parts.port or 3306,
        user=unquote(parts.username or "root"),
        password=unquote(parts.password or ""),
        autocommit=True,
    )

    with connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")

        try:
            yield parts._replace(path=f"/{name}").geturl()
        finally:
            cursor.execute("SET SESSION lock_wait_timeout = 10")
            cursor.execute(f"DROP DATABASE {name}")


def _drop(server: MariaDBServer, database: str) -> None:
    """Drop a database, ending first whoever still uses it and would hold the drop up."""
    users = server.execute(f"SELECT id FROM information_schema.processlist WHERE db = '{database}'")

    for (thread,) in users:
        with contextlib.suppress(CommandError):  # it has gone by itself
            server.execute(f"KILL {thread}")

    server.execute(f"SET STATEMENT lock_wait_timeout = 10 FOR DROP DATABASE {database}")
