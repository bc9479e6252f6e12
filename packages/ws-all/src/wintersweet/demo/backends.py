"""Where the demo keeps its data: real servers when the settings name them, embedded ones otherwise."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from ws_core.errors import ConfigError
from ws_pool.mysql import sql_pool_manager
from ws_pool.redis import RedisPool
from ws_web import Settings, create_app

__all__ = ("Backends", "backends")

_PREFIX = "wintersweet-demo-"
_MARK = "owner"


@dataclass(frozen=True, slots=True)
class Backends:
    """
    The backends of one demo.

    Args:
        state: Directory of the log and the embedded database.
        names: What the data is in, for people: ``("SQLite", "embedded Valkey")``.
        env: Environment variables that name them for the workers.
        redis: Options of a pool on the Redis of the workers.
        restart_redis: Kills the embedded Valkey and starts it again; None for a server of somebody else's.
    """

    state: Path
    names: tuple[str, str]
    env: Mapping[str, str]
    redis: Mapping[str, object]
    restart_redis: Callable[[], Awaitable[None]] | None


@asynccontextmanager
async def backends(directory: Path | None, *, durable: bool = False) -> AsyncIterator[Backends]:
    """
    Start what must be started, and connect this process to the database.

    Without a directory for the state, a temporary one is made and removed at the end. A ``durable`` embedded
    Valkey keeps its data when it is killed.
    """
    settings = Settings()
    database, redis = _default(settings, "DATABASES"), _default(settings, "REDIS_CONFIG")

    with _state(directory) as state:
        env: dict[str, str] = {}
        databases = dict(settings.DATABASES)

        if database is None:
            url = f"sqlite:///{state / 'shop.db'}"
            env["WS_DATABASES__default__url"] = url
            databases["default"] = {"url": url}

        if not settings.LOGGING_CONFIG:
            options = {"file_path": str(state), "file_name": "demo.log", "json": "true", "level": "info"}
            env |= {f"WS_LOGGING_CONFIG__{option}": value for option, value in options.items()}

        for name in ("OPS", "METRICS"):
            if name not in settings.model_fields_set:
                env[f"WS_{name}"] = "true"

        # What is wrong in the settings is found now, before anything is started; the embedded server has no
        # URL yet, and any that is valid will do.
        create_app(
            settings.replace(
                DATABASES=databases,
                REDIS_CONFIG=settings.REDIS_CONFIG or {"default": {"url": "unix:///embedded"}},
            )
        )

        async with sql_pool_manager:
            name = _sql_name(databases)

            if redis is not None:
                yield Backends(state, (name, "Redis"), env, settings.REDIS_CONFIG["default"], None)
                return

            async with _EmbeddedRedis(state, durable=durable) as server:
                env["WS_REDIS_CONFIG__default__url"] = server.url
                yield Backends(
                    state, (name, "embedded Valkey"), env, {"url": server.url}, server.kill_and_start
                )


def _default(settings: Settings, section: str) -> str | None:
    """Return the URL of the section's default pool, None when the section is empty."""
    pools = getattr(settings, section)

    if not pools:
        return None

    if "default" not in pools:
        names = ", ".join(pools)
        message = (
            f"{section} has no pool 'default' (it has: {names}): the demo needs one, or no {section} at all"
        )
        raise ConfigError(message, setting=section)

    return str(pools["default"].get("url", "options"))


def _sql_name(databases: Mapping[str, Mapping[str, object]]) -> str:
    scheme = str(databases["default"].get("url", "")).partition(":")[0].partition("+")[0]
    return {"sqlite": "SQLite", "postgresql": "PostgreSQL", "postgres": "PostgreSQL"}.get(scheme, "MySQL")


@contextmanager
def _state(directory: Path | None) -> Iterator[Path]:
    """Yield the state directory; a temporary one is removed at the end, a given one is kept."""
    if directory is None:
        try:
            _sweep(Path(tempfile.gettempdir()))
            made = Path(tempfile.mkdtemp(prefix=_PREFIX))
        except OSError as error:
            message = (
                f"cannot write into any temporary directory ({error.strerror}): name one with --state-dir"
            )
            raise ConfigError(message) from error

        try:
            with _owned(made):
                yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)

        return

    try:
        directory.mkdir(parents=True, exist_ok=True)

        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        message = (
            f"cannot write into {directory}: {error.strerror}; choose another directory with --state-dir"
        )
        raise ConfigError(message, directory=str(directory)) from error

    yield directory


@contextmanager
def _owned(directory: Path) -> Iterator[None]:
    """Mark a directory as in use, for as long as this process lives."""
    with (directory / "owner.new").open("wb") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        (directory / "owner.new").rename(directory / _MARK)  # nobody sees it before it is locked
        yield


def _sweep(parent: Path) -> None:
    """Remove what demos of this user have left that were killed: directories that nobody owns any more."""
    for path in parent.glob(f"{_PREFIX}*/{_MARK}"):
        with suppress(OSError), path.open("rb") as mark:  # in use, another user's, or just removed
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)

            if os.fstat(mark.fileno()).st_uid == os.geteuid():
                shutil.rmtree(path.parent, ignore_errors=True)


class _EmbeddedRedis:
    """A Valkey of the demo's own; killed, it comes back under the same URL."""

    def __init__(self, state: Path, *, durable: bool) -> None:
        self._data = state / "valkey" if durable else None
        self._link: Path | None = None  # to the socket of the present server
        self._pool: RedisPool | None = None

    async def __aenter__(self) -> Self:
        if self._data is not None:
            shutil.rmtree(self._data, ignore_errors=True)  # a former sale's

        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            await self._pool.close()

        assert self._link is not None
        shutil.rmtree(self._link.parent, ignore_errors=True)

    @property
    def url(self) -> str:
        """Where it is, whichever server serves there now."""
        return f"unix://{self._link}"

    async def kill_and_start(self) -> None:
        """End the server by SIGKILL, and start another one on its data after up to a second and a half."""
        assert self._pool is not None
        server = await self._pool.redis.info("server")
        os.kill(int(server["process_id"]), signal.SIGKILL)
        pool, self._pool = self._pool, None
        await pool.close()
        await asyncio.sleep(random.uniform(0.2, 1.5))
        await self._start()

    async def _start(self) -> None:
        pool = RedisPool.embedded(self._data)
        await pool.start()
        self._pool = pool
        socket = Path(urlsplit(pool.url).path)

        if self._link is None:
            # Beside the folder of the first server, whose path is short enough for a socket.
            self._link = socket.parent.with_name(f"{socket.parent.name}-link") / "s"
            self._link.parent.mkdir(0o700)

        draft = self._link.with_suffix(".new")
        draft.unlink(missing_ok=True)
        draft.symlink_to(socket)
        draft.replace(self._link)
