"""``wintersweet check --deploy``: settings that are fine on your own machine, and mistakes in production.

`find_mistakes` decides from the settings alone. Only how many connections a server allows is asked of it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from wintersweet._cli.service import is_local_host
from ws_core.component import Component
from ws_core.errors import WsError
from ws_pool.base import BasePoolManager
from ws_web.conf import Settings

_SHORTEST_SECRET = 32  # characters; RFC 7518, 3.2: a key of HS256 has at least 256 bits
_SHORTEST_TOKEN = 16
_USUAL = frozenset(
    {"", "admin", "changeme", "example", "password", "postgres", "redis", "root", "secret", "test"}
)
_ANY_ORIGIN = (".*", "https?://.*")
_SECTIONS = ("DATABASES", "REDIS_CONFIG", "MONGO_CONFIG", "ES_CONFIG")
_KEPT_FREE = 3  # connections of a server for its administrators
_OTHER_LOGINS = ("api_key", "credential_provider", "credentials", "passfile")
# Which server it is, since pools may share one, and how many connections it allows.
_LIMITS = {
    "MysqlPool": "SELECT CONCAT(@@hostname, ':', @@port), @@max_connections",
    "PostgresPool": "SELECT concat(inet_server_addr(), ':', inet_server_port()),"
    " current_setting('max_connections')",
}


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
    allowed: dict[str, int] = {}  # by server
    wanted: defaultdict[str, dict[str, int]] = defaultdict(dict)  # by server and pool

    # A server that cannot be reached has a row of its own in the table of servers.
    with contextlib.suppress(WsError):
        if manager is not None:
            async with manager:
                for name in manager.names:
                    pool = manager.get_pool(name)

                    # SQLite has no server, and no limit.
                    if (sql := _LIMITS.get(type(pool).__name__)) is not None:
                        server, limit = await pool.find(sql)
                        allowed[server] = int(limit)
                        wanted[server][name] = pool.statistics().max_size * settings.PROCESS_NUM

    return [
        Mistake(
            ", ".join(f"DATABASES.{name}.max_size" for name in pools),
            f"{settings.PROCESS_NUM} worker(s) may open {sum(pools.values())} connections,"
            f" and the server allows {allowed[server]}",
            "lower it, or raise the server's limit",
        )
        for server, pools in wanted.items()
        if sum(pools.values()) > allowed[server] - _KEPT_FREE
    ]


def _application(settings: Settings) -> Iterator[Mistake]:
    if settings.DEBUG:
        yield Mistake("DEBUG", "replies show the causes of errors", "set it to false")

    if settings.APP_CONFIG.get("debug"):
        yield Mistake("APP_CONFIG.debug", "replies show tracebacks", "leave it out")

    secret = settings.SECRET.get_secret_value()

    # A text that repeats a few characters is as easily guessed as a short one.
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

        if served and not token and (name == "OPS_TOKEN" or not is_local_host(settings.LISTEN_HOST)):
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

        if "*" in options.get("allow_origins", ()) or options.get("allow_origin_regex") in _ANY_ORIGIN:
            yield Mistake(name, "pages of any origin may read replies (CORS)", "name your origins")

        if "*" in options.get("allowed_hosts", ()):
            yield Mistake(name, "any Host header is taken", "name your hosts")

    for header, value in settings.SECURITY_HEADERS.items():
        if not value:
            yield Mistake(f"SECURITY_HEADERS.{header}", "the header is turned off", "leave it at its default")


def _servers(settings: Settings) -> Iterator[Mistake]:
    for section in _SECTIONS:
        for pool, options in getattr(settings, section).items():
            name, given = f"{section}.{pool}", options.get("url") or ""
            urls = [given] if isinstance(given, str) else list(given)

            if any(url == "embedded" for url in urls):
                yield Mistake(f"{name}.url", "the embedded server is for development", "name a server")

            for url in urls:
                parts = urlsplit(url)

                if parts.scheme.startswith("sqlite") and parts.path.strip("/") in {"", ":memory:"}:
                    if settings.PROCESS_NUM > 1:
                        problem = "each worker has a database of its own in memory"
                        yield Mistake(f"{name}.url", problem, "name a file or a server")
                elif not any(options.get(way) for way in _OTHER_LOGINS):
                    yield from _login(name, options, parts)


def _login(name: str, options: Mapping[str, Any], parts: SplitResult) -> Iterator[Mistake]:
    """Look at how one pool logs in to servers of other machines."""
    user, _, hosts = parts.netloc.rpartition("@")
    addresses = [urlsplit(f"//{host}").hostname or "" for host in hosts.split(",")]  # MongoDB has several
    given = options.get("host")
    far = [host for host in ([given] if given else addresses) if host and not is_local_host(host)]
    password = options.get("password")
    where = f"{name}.url" if password is None else f"{name}.password"

    if not far or callable(password):
        return

    password = unquote(user.partition(":")[2]) if password is None else str(password)
    names = {unquote(user.partition(":")[0]), options.get("user"), options.get("username")}

    if password.lower() in _USUAL or password in names:
        what = "there is a usual password" if password else "there is no password"
        yield Mistake(where, f"{what} for {far[0]}", "give the server's user one that is random")


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
