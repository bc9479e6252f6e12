"""
Fixtures that give tests real servers of their own.

Shared servers start when a test first asks for one, and live until the session (with
pytest-xdist: the worker) ends: ``redis_server``, ``valkey_server``, ``mariadb_server``,
``mongo_server``, ``sentinel_servers``, ``cluster_servers``. Tests must not end, pause or
reconfigure these. A test that does takes its own::

    def test_outage(start_server: StartServer) -> None:
        server = start_server(RedisServer, config={"appendonly": "yes"})
        server.kill()

``any_redis`` runs a test on Redis and on Valkey. What a test finds is empty: ``redis_url``,
``valkey_url``, ``any_redis_url``, ``cluster_url``, ``sentinel_url`` flush first; ``mysql_url`` and
``mongo_url`` name a database that is made for the test.
"""

from tests.servers._fixtures import StartServer as StartServer
from tests.servers._fixtures import any_redis as any_redis
from tests.servers._fixtures import any_redis_url as any_redis_url
from tests.servers._fixtures import cluster_servers as cluster_servers
from tests.servers._fixtures import cluster_url as cluster_url
from tests.servers._fixtures import mariadb_server as mariadb_server
from tests.servers._fixtures import mongo_server as mongo_server
from tests.servers._fixtures import mongo_url as mongo_url
from tests.servers._fixtures import mysql_url as mysql_url
from tests.servers._fixtures import postgres_server as postgres_server
from tests.servers._fixtures import postgres_url as postgres_url
from tests.servers._fixtures import redis_server as redis_server
from tests.servers._fixtures import redis_url as redis_url
from tests.servers._fixtures import sentinel_servers as sentinel_servers
from tests.servers._fixtures import sentinel_url as sentinel_url
from tests.servers._fixtures import start_server as start_server
from tests.servers._fixtures import valkey_server as valkey_server
from tests.servers._fixtures import valkey_url as valkey_url

__all__ = (
    "StartServer",
    "any_redis",
    "any_redis_url",
    "cluster_servers",
    "cluster_url",
    "mariadb_server",
    "mongo_server",
    "mongo_url",
    "mysql_url",
    "postgres_server",
    "postgres_url",
    "redis_server",
    "redis_url",
    "sentinel_servers",
    "sentinel_url",
    "start_server",
    "valkey_server",
    "valkey_url",
)
