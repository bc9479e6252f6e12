"""The registry of behaviours, and the started managers that they use."""

import os

BEHAVIOURS = {}
"""Name → function."""

HOST = "127.0.0.1"


def behaviour(function):
    """Register a function under its name; its docstring says what is tried."""
    BEHAVIOURS[function.__name__] = function
    return function


def databases(dicts=True):
    """Return DATABASES as the settings of 1.1.4 have them."""
    import aiomysql

    found = {
        "default": {
            "host": HOST,
            "port": int(os.environ["LEGACY_MYSQL_PORT"]),
            "user": "root",
            "password": "",
            "db": "test",
            "charset": "utf8",
            "autocommit": True,
            "cursorclass": aiomysql.DictCursor,
            "minsize": 1,
            "maxsize": 5,
        }
    }
    if not dicts:  # the results of 1.1.4 cannot be read row by row with DictCursor
        del found["default"]["cursorclass"]
    return found


def redis_config():
    """Return REDIS_CONFIG as the settings of 1.1.4 have them."""
    return {
        "default": {
            "address": "redis://%s:%s" % (HOST, os.environ["LEGACY_REDIS_PORT"]),
            "password": None,
            "db": 0,
            "encoding": "utf-8",
            "minsize": 1,
            "maxsize": 6,
        }
    }


def users_table():
    """Return a table of users."""
    from sqlalchemy import Column, Integer, MetaData, String, Table

    return Table(
        "legacy_users",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("name", String(50), nullable=False),
        Column("money", Integer, nullable=False),
    )


async def with_users(dicts=True):
    """Return the started manager of SQL pools and an empty table of users."""
    from wintersweet.asyncs.pool.mysql import mysql_pool_manager

    mysql_pool_manager.register(databases(dicts))
    await mysql_pool_manager

    async with mysql_pool_manager.get_client() as client:
        await client.execute("DROP TABLE IF EXISTS legacy_users")
        await client.execute(
            "CREATE TABLE legacy_users (id INT AUTO_INCREMENT PRIMARY KEY,"
            " name VARCHAR(50) NOT NULL, money INT NOT NULL) ENGINE=InnoDB"
        )

    return mysql_pool_manager, users_table()


async def with_redis():
    """Return the started manager of Redis pools, over an empty database."""
    from wintersweet.asyncs.pool.redis import redis_pool_manager

    redis_pool_manager.register(redis_config())
    await redis_pool_manager

    async with redis_pool_manager.get_client() as client:
        await client.flushdb()

    return redis_pool_manager
