"""``wintersweet check --deploy``: settings that are fine on your own machine, and mistakes in production.

`find_mistakes` decides from the settings alone. Only how many connections a server allows is asked of it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ws_core.component import Component
from ws_core.errors import WsError
from ws_pool.base import BasePoolManager
from ws_web.conf import Settings

__all__ = ("Mistake", "find_mistakes", "find_scarcity")

_SHORTEST_SECRET = 32  # characters; NIST SP 800-132 and RFC 7518 ask for keys of 128 and 256 bits
_SHORTEST_TOKEN = 16
_USUAL = frozenset(
    {"", "admin", "changeme", "example", "password", "postgres", "redis", "root", "secret", "test"}
)
_SECTIONS = ("DATABASES", "REDIS_CONFIG", "MONGO_CONFIG", "ES_CONFIG")
_KEPT_FREE = 3  # connections of a server for its administrators


@dataclass(frozen=True, slots=True)
class Mistake:
    """A setting that should not reach production: its name, what is wrong, and what to do."""

    setting: str
    problem: str
    remedy: str


def find_mistakes(settings: Settings, directory: Path) -> list[Mistake]:
    """Return the mistakes that the settings, and the files of a project's directory, show by themselves."""
    return [
        *_application(settings),
        *_tokens(settings),
        *_browsers(settings),
        *_servers(settings),
        *_sources(settings),
        *_logging(settings.LOGGING_CONFIG),
        *_files(directory),
    ]


async def find_scarcity(settings: Settings, components: Mapping[str, Component]) -> list[Mistake]:
    """Return the SQL pools that, over all workers, may open more connections than their server allows."""
    manager: BasePoolManager[Any, Any] | None = getattr(components.get("DATABASES"), "manager", None)

    if manager is None:
        return []

    found: list[Mistake] = []

    # A server that cannot be reached has a row of its own in the table of servers.
    with contextlib.suppress(WsError):
        async with manager:
            for name in manager.names:
                pool = manager.get_pool(name)
                most = pool.statistics().max_size * settings.PROCESS_NUM
                allowed = await _allowed(pool, str(settings.DATABASES[name].get("url")))

                if allowed is not None and most > allowed - _KEPT_FREE:
                    workers = f"{settings.PROCESS_NUM} workers" if settings.PROCESS_NUM > 1 else "1 worker"
                    problem = f"{workers} may open {most} connections, and the server allows {allowed}"
                    remedy = "lower its max_size, or raise the server's limit"
                    found.append(Mistake(f"DATABASES.{name}.max_size", problem, remedy))

    return found


async def _allowed(pool: Any, url: str) -> int | None:  # Any: an SQL pool of any dialect
    """Return how many connections a pool's server allows; None for SQLite, which has no server."""
    if url.startswith("sqlite"):
        return None

    sql = "SHOW max_connections" if url.startswith("postgres") else "SELECT @@max_connections"
    return int((await pool.find(sql))[0])


def _application(settings: Settings) -> Iterator[Mistake]:
    if settings.DEBUG:
        yield Mistake("DEBUG", "replies show the causes of errors", "set it to false")

    if settings.APP_CONFIG.get("debug"):
        yield Mistake("APP_CONFIG.debug", "replies show tracebacks", "leave it out")

    secret = settings.SECRET.get_secret_value()

    if secret and (len(secret) < _SHORTEST_SECRET or len(set(secret)) < _SHORTEST_SECRET // 4):
        remedy = 'make one by: python -c "import secrets; print(secrets.token_urlsafe(32))"'
        yield Mistake(
            "SECRET", f"can be guessed: it has fewer than {_SHORTEST_SECRET} random characters", remedy
        )

    for network in settings.TRUSTED_PROXIES:
        if ipaddress.ip_network(network, strict=False).prefixlen == 0:
            problem = f"{network} believes what any client says of its address"
            yield Mistake("TRUSTED_PROXIES", problem, "name the networks of your proxies")


def _tokens(settings: Settings) -> Iterator[Mistake]:
    for page, served, name in (
        ("/_ops", settings.OPS, "OPS_TOKEN"),
        ("/metrics", settings.METRICS, "METRICS_TOKEN"),
    ):
        token = getattr(settings, name).get_secret_value()

        if served and not token and (name == "OPS_TOKEN" or not _is_local(settings.LISTEN_HOST)):
            yield Mistake(name, f"{page} is served without a token", "set one, or turn the page off")
        elif served and token and len(token) < _SHORTEST_TOKEN:
            yield Mistake(
                name, f"can be guessed: fewer than {_SHORTEST_TOKEN} characters", "take a longer one"
            )


def _browsers(settings: Settings) -> Iterator[Mistake]:
    if "*" in settings.ALLOWED_ORIGINS:
        yield Mistake("ALLOWED_ORIGINS", "pages of any origin may open WebSockets", "name your origins")

    for number, entry in enumerate(settings.MIDDLEWARES):
        options = entry.get("options", {}) if isinstance(entry, Mapping) else {}
        name = f"MIDDLEWARES.{number}"

        if "*" in options.get("allow_origins", ()) or options.get("allow_origin_regex") in {
            ".*",
            "https?://.*",
        }:
            yield Mistake(name, "pages of any origin may read replies (CORS)", "name your origins")

        if "*" in options.get("allowed_hosts", ()):
            yield Mistake(name, "any Host header is taken", "name your hosts")

    for header, value in settings.SECURITY_HEADERS.items():
        if not value:
            yield Mistake(f"SECURITY_HEADERS.{header}", "the header is turned off", "leave it at its default")


def _servers(settings: Settings) -> Iterator[Mistake]:
    for section in _SECTIONS:
        for pool, options in getattr(settings, section).items():
            yield from _server(settings, f"{section}.{pool}.url", str(options.get("url")))


def _server(settings: Settings, name: str, url: str) -> Iterator[Mistake]:
    parts = urlsplit(url)

    if parts.scheme.startswith("sqlite"):
        if settings.PROCESS_NUM > 1 and parts.path.strip("/") in {"", ":memory:"}:
            yield Mistake(name, "each worker has a database of its own in memory", "name a file or a server")
    elif url == "embedded":
        yield Mistake(name, "the embedded server is for development", "name a server")
    elif parts.hostname and not _is_local(parts.hostname):
        password = unquote(parts.password or "")

        if password.lower() in {*_USUAL, unquote(parts.username or "").lower()}:
            what = "there is a usual password" if password else "there is no password"
            yield Mistake(name, f"{what} for {parts.hostname}", "give the server's user one that is random")


def _sources(settings: Settings) -> Iterator[Mistake]:
    """Find secrets in TOML, which goes into version control; a module may take them from elsewhere."""
    for name, setting in settings.describe().items():
        if "***" in str(setting.value) and setting.source == "TOML":
            remedy = f"move it into the environment, as WS_{name.replace('.', '__')}"
            yield Mistake(name, "a secret stands in the TOML file", remedy)


def _logging(section: Mapping[str, Any]) -> Iterator[Mistake]:
    if section.get("debug"):
        yield Mistake("LOGGING_CONFIG.debug", "tracebacks show the values of variables", "leave it out")

    level = str(section.get("level", "info"))

    if level.upper() in {"TRACE", "DEBUG"}:
        yield Mistake("LOGGING_CONFIG.level", f"{level} writes more than disks like", "set it to info")

    folder = section.get("file_path")

    if folder is not None and not _is_writable(Path(str(folder))):
        problem = f"{folder} is not a directory that this user can write to"
        yield Mistake("LOGGING_CONFIG.file_path", problem, "make it, and give it to the service's user")


def _is_writable(folder: Path) -> bool:
    """Whether a folder can be written to, or made."""
    existing: Sequence[Path] = [path for path in (folder, *folder.absolute().parents) if path.exists()]
    return existing[0].is_dir() and os.access(existing[0], os.W_OK | os.X_OK)


def _files(directory: Path) -> Iterator[Mistake]:
    path = directory / ".env"

    if path.exists() and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        yield Mistake(".env", "other users of the machine can read it", "chmod 600 .env")


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
