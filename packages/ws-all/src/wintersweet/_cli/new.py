"""``wintersweet new``: a project from the template in `wintersweet.scaffold`."""

from __future__ import annotations

import keyword
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from wintersweet._cli.output import stderr
from wintersweet._cli.template import template, write
from ws_core.errors import ConfigError

PARTS = ("redis", "mysql", "postgres", "ws", "tasks", "auth")
"""What a project may be made with."""

_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
_NEED_REDIS = frozenset({"ws", "tasks", "auth"})
_SCHEMES = {"mysql": "mysql", "postgres": "postgresql"}
_PORTS = {"mysql": 3306, "postgres": 5432}
_TAKEN = frozenset({"wintersweet", "tests", "test"})


def check_name(name: str) -> str:
    """
    Turn a project's name into its package's name.

    Example:
        >>> check_name("flower-shop")
        'flower_shop'
    """
    if keyword.iskeyword(name):
        message = f"{name!r} cannot name a project: it is a word of Python; choose another name"
        raise ConfigError(message, name=name)

    if not _NAME.fullmatch(name):
        rule = "use lower-case letters, digits and single hyphens, such as flower-shop"
        message = f"{name!r} cannot name a project: {rule}"
        raise ConfigError(message, name=name)

    package = name.replace("-", "_")

    if package in _TAKEN or package in sys.stdlib_module_names or package.startswith("ws_"):
        raise ConfigError(
            f"a project {name!r} would hide the module {package}: choose another name", name=name
        )

    return package


def check_parts(wanted: str) -> list[str]:
    """
    Read a list of parts; those that need Redis bring it along.

    Example:
        >>> check_parts("ws, postgres")
        ['ws', 'postgres', 'redis']
    """
    parts = [word for word in wanted.replace(" ", "").split(",") if word]

    if unknown := [part for part in parts if part not in PARTS]:
        message = f"there is no part {unknown[0]!r}: choose from {', '.join(PARTS)}, such as --with redis,ws"
        raise ConfigError(message, part=unknown[0])

    return list(dict.fromkeys([*parts, *(["redis"] if _NEED_REDIS & set(parts) else [])]))


def create(name: str, parent: Path, parts: Sequence[str] = ()) -> Path:
    """
    Write a new project.

    Args:
        name: The project's name, also its directory's.
        parent: Where to put the directory.
        parts: Some of `PARTS`. Of two databases the first one is the default pool.

    Returns:
        The project's directory.

    Raises:
        ConfigError: The name is wrong, the directory exists, or nothing can be written there.
    """
    package = check_name(name)
    target = parent / name

    try:
        target.mkdir()
    except FileExistsError:
        raise ConfigError(f"{target} exists already: choose another name, or remove it", name=name) from None
    except OSError as error:
        message = f"cannot create {target}: {error.strerror}; run this in a directory that you may write into"
        raise ConfigError(message, name=name) from error

    names = _names(name, package, parts)

    try:
        write(template(), target, names)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise ConfigError(
            f"cannot write {error.filename}: {error.strerror}; nothing was left behind"
        ) from error

    console = stderr()
    console.print(f"[green]✓[/] created [bold]{name}[/]; its README.md says what is in it")
    console.print(f"  cd {name}", markup=False)
    console.print("  python -m pytest", markup=False)

    if names["backends"]:
        console.print("  cp .env.example .env   # servers from wheels; or: docker compose up", markup=False)

    console.print("  wintersweet db upgrade && wintersweet run", markup=False)

    return target


def _names(name: str, package: str, parts: Sequence[str]) -> dict[str, Any]:  # Any: as the templates use it
    """Return what the files of the template refer to."""
    kinds = [part for part in parts if part in _SCHEMES]
    servers = dict(zip(["default", *kinds[1:]], kinds, strict=False))  # by pool

    def urls(login: Callable[[str], str], file: str) -> dict[str, str]:
        named = {pool: f"{_SCHEMES[kind]}://app:{login(kind)}/{package}" for pool, kind in servers.items()}
        return named or {"default": f"sqlite:///{file}"}

    return {
        **{part: part in parts for part in PARTS},
        "name": name,
        "package": package,
        "settings": f"{package}.settings",
        "tables": f"{package}.tables",
        "metadata": "metadata",
        "servers": servers,
        "backends": [*servers.values(), *(["redis"] if "redis" in parts else [])],
        "urls": urls(lambda kind: f"app@localhost:{_PORTS[kind]}", f"{package}.db"),
        # Between containers the servers have names, and passwords come from .env.
        "compose_urls": urls(lambda kind: f"${{{kind.upper()}_PASSWORD:-app}}@{kind}", f"/data/{package}.db"),
    }
