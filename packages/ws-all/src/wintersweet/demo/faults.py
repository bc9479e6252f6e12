"""What can break beneath a sale, and how: processes by signals, connections by their server."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from wintersweet.demo.backends import Backends
from wintersweet.demo.jobs import next_receipt
from ws_core.errors import ConfigError, UnavailableError, WsError
from ws_pool import sql_pool_manager
from ws_pool.redis import RedisPool
from ws_web.server import Supervisor

__all__ = ("REDIS_NAME", "Fault", "check_commands", "faults")

REDIS_NAME: Final = "wintersweet-demo"
"""The name of the workers' connections in CLIENT LIST, so that no others are cut."""

_MYSQL: Final = (
    "SELECT id FROM information_schema.processlist"
    " WHERE db = DATABASE() AND user = SUBSTRING_INDEX(USER(), '@', 1) AND id <> CONNECTION_ID()"
)
_POSTGRES: Final = (
    "SELECT pg_terminate_backend(pid) AS ended FROM pg_stat_activity"
    " WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
)
_RESTART_TIMEOUT: Final = 120.0


@dataclass(frozen=True, slots=True)
class Fault:
    """
    One kind of fault.

    Args:
        kind: Its name.
        strike: Causes it, and returns when what it ended is back: True of a server that was away, None
            of what is never away as a whole. None instead of it: the demo has no means to cause it.
        recovered: Returns when what was struck works again; None when an answer to a buyer shows that.
    """

    kind: str
    strike: Callable[[], Awaitable[bool | None]] | None
    recovered: Callable[[], Awaitable[None]] | None = None


def check_commands(found: Backends, redis: str | None, database: str | None) -> None:
    """Raise `ConfigError` for a command that restarts what the demo has itself."""
    if redis is not None and found.restart_redis is not None:
        raise ConfigError("leave --restart-redis out: the demo restarts its embedded Valkey itself")

    if database is not None and found.names[0] == "SQLite":
        raise ConfigError("--restart-database is for a server: SQLite ends with the workers that use it")


def faults(
    supervisors: Sequence[Supervisor], found: Backends, redis: str | None, database: str | None
) -> list[Fault]:
    """
    Return all kinds of faults: of workers, those of the shop and of jobs if there are any, and of servers.

    ``redis`` and ``database`` are the shell commands that kill and restart these servers.
    """
    restart_redis = partial(_run, redis) if redis is not None else found.restart_redis
    shop, *jobs = supervisors
    cut = {"MySQL": _cut_mysql, "PostgreSQL": _cut_postgres}.get(found.names[0])

    return [
        *(
            Fault(f"job worker {how}", partial(_signal, supervisor, number), next_receipt)
            for supervisor in jobs
            for how, number in (("killed", signal.SIGKILL), ("terminated", signal.SIGTERM))
        ),
        Fault("worker killed", partial(_signal, shop, signal.SIGKILL)),
        Fault("worker terminated", partial(_signal, shop, signal.SIGTERM)),
        Fault("rolling restart", partial(_restart, shop)),
        Fault("redis killed", None if restart_redis is None else partial(_away, restart_redis)),
        Fault("redis connections cut", partial(_cut_redis, found.redis)),
        Fault("database killed", None if database is None else partial(_away, partial(_run, database))),
        Fault("database connections cut", cut),
    ]


async def _signal(supervisor: Supervisor, number: int) -> None:
    """Send a signal to one of the workers, and return when it has ended."""
    pid = random.choice(supervisor.pids)

    with suppress(ProcessLookupError):  # it has just ended by itself
        os.kill(pid, number)

    while pid in supervisor.pids:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.02)


async def _restart(supervisor: Supervisor) -> None:
    """Replace all workers, one after the other."""
    old = set(supervisor.pids)
    supervisor.restart()

    while old & set(supervisor.pids) and supervisor.failure is None:  # noqa: ASYNC110 - other processes
        await asyncio.sleep(0.02)


async def _away(restart: Callable[[], Awaitable[object]]) -> bool:
    await restart()
    return True


async def _run(command: str) -> None:
    """Run a command that kills a server, and returns when it serves again."""
    process = await asyncio.create_subprocess_shell(
        command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True
    )

    try:
        async with asyncio.timeout(_RESTART_TIMEOUT):
            said, _ = await process.communicate()
    except TimeoutError:
        raise UnavailableError(f"{command!r} did not end within {_RESTART_TIMEOUT:g} s") from None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)  # what the shell has started, too
            await process.wait()

    if process.returncode:
        text = said.decode(errors="replace").strip()
        raise UnavailableError(f"{command!r} ended with code {process.returncode}: {text}")


async def _cut_redis(options: Mapping[str, object]) -> None:
    """Let Redis end all connections of the workers."""
    name = options.get("client_name", REDIS_NAME)
    own: dict[str, Any] = {**options, "client_name": f"{name}-chaos"}  # Any: the settings' types

    async with RedisPool(**own) as pool:
        for client in await pool.redis.client_list():
            if client["name"] == name:
                await pool.redis.client_kill_filter(_id=client["id"])


async def _cut_mysql() -> None:
    async with sql_pool_manager.get_client() as sql:
        for row in await sql.select(_MYSQL):
            with suppress(WsError):  # it has gone by itself
                await sql.execute(f"KILL CONNECTION {int(row.id)}")


async def _cut_postgres() -> None:
    await sql_pool_manager.select(_POSTGRES)
