"""Real servers of our own for tests, benchmarks and documentation examples.

Each is started on a free port of 127.0.0.1 with a temporary folder, dies with the process that
started it, and can be killed, paused, resumed and restarted on the same port and data. Redis is
reached by redis-py and MariaDB by PyMySQL, which are loaded on use; the rest is standard library::

    from tools.servers import RedisServer

    with RedisServer(config={"appendonly": "yes"}) as server:
        print(server.url)
        server.kill()
        server.restart()
"""

from tools.servers._binaries import MissingBinary as MissingBinary
from tools.servers._cluster import ClusterNode as ClusterNode
from tools.servers._cluster import ClusterServers as ClusterServers
from tools.servers._cluster import SlotMove as SlotMove
from tools.servers._mariadb import MariaDBServer as MariaDBServer
from tools.servers._mariadb import connect_mysql as connect_mysql
from tools.servers._mariadb import query as query
from tools.servers._mongo import MongoServer as MongoServer
from tools.servers._pgbouncer import PgbouncerServer as PgbouncerServer
from tools.servers._ports import PortReservation as PortReservation
from tools.servers._postgres import PostgresServer as PostgresServer
from tools.servers._process import CommandError as CommandError
from tools.servers._process import Server as Server
from tools.servers._process import ServerError as ServerError
from tools.servers._redis import RedisConnection as RedisConnection
from tools.servers._redis import RedisServer as RedisServer
from tools.servers._redis import ValkeyServer as ValkeyServer
from tools.servers._sentinel import SentinelServer as SentinelServer
from tools.servers._sentinel import SentinelServers as SentinelServers
from tools.servers._sentinel import wait_until as wait_until

__all__ = (
    "ClusterNode",
    "ClusterServers",
    "CommandError",
    "MariaDBServer",
    "MissingBinary",
    "MongoServer",
    "PgbouncerServer",
    "PortReservation",
    "PostgresServer",
    "RedisConnection",
    "RedisServer",
    "SentinelServer",
    "SentinelServers",
    "Server",
    "ServerError",
    "SlotMove",
    "ValkeyServer",
    "connect_mysql",
    "query",
    "wait_until",
)
