"""Where the demo keeps its data: real servers when the settings name them, embedded ones otherwise."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

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
    """

    state: Path
    names: tuple[str, str]
    env: Mapping[str, str]


@asynccontextmanager
async def backends(directory: Path | None) -> AsyncIterator[Backends]:
    """
    Start what must be started, and connect this process to the database.

    Args:
        directory: Where to keep the state, or None for a temporary directory that is removed at the end.

    Raises:
        ConfigError: The settings are wrong, or the directory cannot be written.
        UnavailableError: A server cannot be reached.
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
            env["WS_LOGGING_CONFIG__file_path"] = str(state)
            env["WS_LOGGING_CONFIG__file_name"] = "demo.log"
            env["WS_LOGGING_CONFIG__json"] = "true"
            env["WS_LOGGING_CONFIG__level"] = "info"

        for name in ("OPS", "METRICS"):
            if name not in settings.model_fields_set:
                env[f"WS_{name}"] = "true"

        # All that is wrong in the settings is told now, before anything is started.
        create_app(
            settings.replace(
                DATABASES=databases,
                REDIS_CONFIG=settings.REDIS_CONFIG or {"default": {"url": "unix:///embedded"}},
            )
        )

        async with _redis(redis) as url:
            if redis is None:
                env["WS_REDIS_CONFIG__default__url"] = url

            async with sql_pool_manager:
                yield Backends(state, (_sql_name(databases), "Redis" if redis else "embedded Valkey"), env)


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
    return "SQLite" if str(databases["default"].get("url", "")).startswith("sqlite") else "MySQL"


@contextmanager
def _state(directory: Path | None) -> Iterator[Path]:
    """Give the state directory; a temporary one is removed at the end, a given one is kept."""
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


@asynccontextmanager
async def _redis(url: str | None) -> AsyncIterator[str]:
    """Give the URL of Redis, and start a server of our own when there is none."""
    if url is not None:
        yield url
        return

    async with RedisPool.embedded() as pool:
        yield pool.url
