"""SQL pools, clients, transactions and managers."""

import asyncio
import json

from ._setup import behaviour, databases, with_users


@behaviour
async def sql_insert_returns_the_id():
    """`insert` of the manager returns the generated key."""
    manager, users = await with_users()
    first = await manager.insert(users.insert().values(name="ann", money=1))
    second = await manager.insert(users.insert().values(name="bob", money=2))
    return [first, second]


@behaviour
async def sql_select_returns_rows_by_name():
    """`select` of the manager returns dicts where the settings name DictCursor."""
    manager, users = await with_users()
    await manager.insert(users.insert().values(name="ann", money=1))
    rows = await manager.select(users.select())
    return [
        type(rows).__name__,
        [dict(row) for row in rows],
        rows[0]["name"],
        rows[0].get("none"),
        "id" in rows[0],
    ]


@behaviour
async def sql_rows_are_dicts():
    """A row can be sent as JSON, unpacked and iterated as a dict."""
    manager, users = await with_users()
    await manager.insert(users.insert().values(name="ann", money=1))
    row = await manager.find(users.select())
    return [json.dumps(row), list(row), sorted(row.items(), key=str), {**row}]


@behaviour
async def sql_select_nothing():
    """`select` without rows is an empty list, `find` is None."""
    manager, users = await with_users()
    return [await manager.select(users.select()), await manager.find(users.select())]


@behaviour
async def sql_find_returns_one():
    """`find` returns the first row."""
    manager, users = await with_users()
    for name in ("ann", "bob"):
        await manager.insert(users.insert().values(name=name, money=1))
    row = await manager.find(users.select().order_by(users.c.id.desc()))
    return row["name"]


@behaviour
async def sql_count_of_a_labelled_column():
    """`count` returns the column that 1.x wanted under its own name."""
    from sqlalchemy import func
    from sqlalchemy.sql import select

    manager, users = await with_users()
    for name in ("ann", "bob", "eve"):
        await manager.insert(users.insert().values(name=name, money=1))
    column = func.count(users.c.id).label("tbl_row_count")
    try:
        statement = select([column])
    except Exception:
        statement = select(column)
    return [await manager.count(statement), await manager.count(statement.where(users.c.name == "ann"))]


@behaviour
async def sql_update_and_delete_return_counts():
    """`update` and `delete` return how many rows they changed."""
    manager, users = await with_users()
    for name in ("ann", "bob"):
        await manager.insert(users.insert().values(name=name, money=1))
    changed = await manager.update(users.update().values(money=5))
    gone = await manager.delete(users.delete().where(users.c.name == "ann"))
    return [changed, gone, len(await manager.select(users.select()))]


@behaviour
async def sql_pool_name_by_keyword():
    """Every verb of the manager takes `pool_name`."""
    manager, users = await with_users()
    await manager.insert(users.insert().values(name="ann", money=1), pool_name="default")
    await manager.update(users.update().values(money=3), pool_name="default")
    found = await manager.find(users.select(), pool_name="default")
    rows = await manager.select(users.select(), pool_name="default")
    await manager.execute("SELECT 1", pool_name="default")
    gone = await manager.delete(users.delete(), pool_name="default")
    return [found["money"], len(rows), gone]


@behaviour
async def sql_get_client_by_keyword():
    """`get_client`, `get_pool` and `pool_status` take `pool_name`."""
    manager, users = await with_users()
    async with manager.get_client(pool_name="default", alone=True) as client:
        await client.insert(users.insert().values(name="ann", money=1))
    pool = manager.get_pool(pool_name="default")
    return [pool.name, pool.minsize, pool.maxsize, pool.size >= 1, pool.freesize >= 1]


@behaviour
async def sql_pool_status_names_the_pool():
    """`pool_status` is a text that names pool and database."""
    manager, _ = await with_users()
    status = manager.pool_status(pool_name="default")
    return [isinstance(status, str), "[default]" in status, "test" in status]


@behaviour
async def sql_nested_clients_are_one():
    """Inside of a block, `get_client` returns the block's client; with `alone`, another."""
    manager, _ = await with_users()
    async with manager.get_client() as outer:
        async with manager.get_client() as inner, manager.get_client(alone=True) as other:
            return [outer is inner, outer is other]


@behaviour
async def sql_begin_as_a_block():
    """`client.begin()` as a block commits, and rolls back after an error."""
    manager, users = await with_users()
    async with manager.get_client() as client:
        async with client.begin():
            await client.insert(users.insert().values(name="ann", money=1))
        try:
            async with client.begin():
                await client.insert(users.insert().values(name="bob", money=1))
                raise ValueError("undo")
        except ValueError:
            pass
    return [row["name"] for row in await manager.select(users.select())]


@behaviour
async def sql_begin_awaited():
    """`await client.begin()` returns a transaction with `commit` and `rollback`."""
    manager, users = await with_users()
    async with manager.get_client() as client:
        transaction = await client.begin()
        await client.insert(users.insert().values(name="ann", money=1))
        await transaction.commit()
        transaction = await client.begin()
        await client.insert(users.insert().values(name="bob", money=1))
        await transaction.rollback()
    return [row["name"] for row in await manager.select(users.select())]


@behaviour
async def sql_execute_returns_a_result():
    """What `execute` returns has `lastrowid` and `rowcount`."""
    manager, users = await with_users()
    async with manager.get_client() as client:
        result = await client.execute(users.insert().values(name="ann", money=1))
        changed = await client.execute(users.update().values(money=4))
        return [result.lastrowid, result.rowcount, changed.rowcount]


@behaviour
async def sql_execute_iterates():
    """What `execute` returns of a query is iterated, and has `fetchall`, `fetchone` and `first`."""
    manager, users = await with_users(dicts=False)
    for name in ("ann", "bob", "eve"):
        await manager.insert(users.insert().values(name=name, money=1))
    async with manager.get_client() as client:
        names = []
        async for row in await client.execute(users.select().order_by(users.c.id)):
            names.append(row["name"])
        one = await (await client.execute(users.select().order_by(users.c.id))).fetchone()
        every = await (await client.execute(users.select())).fetchall()
        first = await (await client.execute(users.select().order_by(users.c.id.desc()))).first()
        return [names, one["name"], len(every), first["name"]]


@behaviour
async def sql_execute_cursor():
    """What `execute` returns has the driver's `cursor`."""
    manager, users = await with_users()
    await manager.insert(users.insert().values(name="ann", money=1))
    async with manager.get_client() as client:
        result = await client.execute("SELECT name FROM legacy_users")
        rows = await result.cursor.fetchall()
        return [[dict(row) for row in rows], result.cursor.rowcount]


@behaviour
async def sql_execute_a_string_with_values():
    """`execute` takes a string with values by position."""
    manager, users = await with_users(dicts=False)
    async with manager.get_client() as client:
        await client.execute("INSERT INTO legacy_users (name, money) VALUES (%s, %s)", "ann", 7)
        result = await client.execute("SELECT money FROM legacy_users WHERE name = %s", "ann")
        row = await result.first()
        return row["money"]


@behaviour
async def sql_execute_with_keywords():
    """`execute` takes the values of an insert as keywords or as one mapping."""
    manager, users = await with_users()
    async with manager.get_client() as client:
        await client.execute(users.insert(), {"id": 5, "name": "ann", "money": 7})
        await client.execute(users.insert(), id=6, name="bob", money=8)
    return [dict(row) for row in await manager.select(users.select())]


@behaviour
async def sql_wrong_statement_is_a_type_error():
    """`select` of an insert, and `insert` of a select, are refused before anything runs."""
    manager, users = await with_users()
    refused = []
    for verb, statement in (
        (manager.select, users.insert().values(name="x", money=1)),
        (manager.find, users.delete()),
        (manager.insert, users.select()),
        (manager.update, users.select()),
        (manager.delete, users.select()),
    ):
        try:
            await verb(statement)
        except Exception as error:
            refused.append(isinstance(error, TypeError))
    return [refused, await manager.select(users.select())]


@behaviour
async def sql_client_close_gives_back():
    """A client that was taken with `await pool.get_client()` is given back by `close`."""
    manager, users = await with_users()
    pool = manager.get_pool()
    client = await pool.get_client(alone=True)
    await client.insert(users.insert().values(name="ann", money=1))
    open_before = client.closed
    await client.close()
    return [open_before, client.closed, len(await manager.select(users.select()))]


@behaviour
async def sql_pool_context_manager_client():
    """`pool.get_context_manager_client` is a block with a client."""
    manager, users = await with_users()
    async with manager.get_pool().get_context_manager_client(alone=True) as client:
        await client.insert(users.insert().values(name="ann", money=1))
        return len(await client.select(users.select()))


@behaviour
async def sql_pool_health():
    """`pool.health()` is True, and `check_health` of the manager."""
    manager, _ = await with_users()
    return [bool(await manager.get_pool().health()), await manager.check_health()]


@behaviour
async def sql_fill_free_pool():
    """`init_fill_free_pool` opens connections."""
    manager, _ = await with_users()
    pool = manager.get_pool()
    await pool.init_fill_free_pool()
    await asyncio.sleep(0.3)
    return pool.freesize >= 1


@behaviour
async def sql_pool_made_alone():
    """`MysqlPool` is made from the same options, without a manager."""
    from wintersweet.asyncs.pool.mysql import MysqlPool

    options = databases()["default"]
    pool = MysqlPool(**options)
    await pool.init_fill_free_pool()
    found = [pool.minsize, pool.maxsize]
    pool.close()
    return found


@behaviour
def sql_safestr():
    """`MysqlClient.safestr` escapes."""
    from wintersweet.asyncs.pool.mysql import MysqlClient

    return [MysqlClient.safestr("it's"), MysqlClient.safestr(3), MysqlClient.safestr('a\\b"c\n')]


@behaviour
async def sql_atomic_commits_and_rolls_back():
    """A function with `@atomic()` is one transaction."""
    from wintersweet.asyncs.pool.mysql import atomic

    manager, users = await with_users()

    @atomic()
    async def add(name, fail):
        await manager.insert(users.insert().values(name=name, money=1))
        if fail:
            raise ValueError(name)
        return name

    done = await add("ann", False)
    try:
        await add("bob", True)
    except ValueError:
        pass
    return [done, [row["name"] for row in await manager.select(users.select())]]


@behaviour
async def sql_atomic_by_keyword():
    """`atomic(pool_name=...)`."""
    from wintersweet.asyncs.pool.mysql import atomic

    manager, users = await with_users()

    @atomic(pool_name="default")
    async def add(name):
        async with manager.get_client() as client:
            return await client.insert(users.insert().values(name=name, money=1))

    return [await add("ann"), add.__name__]


@behaviour
async def sql_atomic_starts_the_manager():
    """A function with `@atomic` starts the manager when that is not done yet."""
    from wintersweet.asyncs.pool.mysql import atomic, mysql_pool_manager

    mysql_pool_manager.register(databases(dicts=False))

    @atomic("default")
    async def one():
        async with mysql_pool_manager.get_client() as client:
            result = await client.execute("SELECT 1 AS one")
            return (await result.first())["one"]

    return [await one(), mysql_pool_manager.ready]


@behaviour
async def sql_close_is_a_plain_function():
    """`manager.close()` closes without being awaited."""
    manager, _ = await with_users()
    pool = manager.get_pool()
    manager.close()
    await asyncio.sleep(0.2)
    return [manager.ready, pool.minsize]


@behaviour
async def manager_is_one_object():
    """A manager's class returns the one manager there is."""
    from wintersweet.asyncs.pool.mysql import MysqlPoolManager, mysql_pool_manager
    from wintersweet.asyncs.pool.redis import RedisPoolManager, redis_pool_manager

    return [MysqlPoolManager() is mysql_pool_manager, RedisPoolManager() is redis_pool_manager]


@behaviour
async def manager_initialize_and_ready():
    """`initialize` starts, `ready` says so, and a second start does nothing."""
    from wintersweet.asyncs.pool.mysql import mysql_pool_manager

    before = mysql_pool_manager.ready
    mysql_pool_manager.register(databases())
    await mysql_pool_manager.initialize()
    again = await mysql_pool_manager
    return [before, mysql_pool_manager.ready, again is mysql_pool_manager]


@behaviour
async def manager_register_after_the_start():
    """`register` on a started manager is an error."""
    manager, _ = await with_users()
    try:
        manager.register(databases())
    except Exception:
        return "refused"
    return "taken"


@behaviour
async def manager_health_without_pools():
    """`check_health` of a manager without pools is True."""
    from wintersweet.asyncs.pool.mysql import mysql_pool_manager

    return await mysql_pool_manager.check_health()


@behaviour
async def manager_as_text():
    """`str(manager)` names its pools."""
    manager, _ = await with_users()
    return "default" in str(manager)
