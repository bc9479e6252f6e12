"""The options of a MySQL or MariaDB server: read from a URL or from keys."""

from __future__ import annotations

import difflib
import ssl as tls
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ws_core.redaction import mask_url
from ws_pool._core.config import (
    boolean,
    choice,
    integer,
    number,
    option,
    optional,
    parse,
    text,
    text_or_callable,
    url_parts,
    url_port,
)
from ws_pool._sql.options import ServerOptions, parse_options, url_options
from ws_pool.errors import ConfigError

Password = str | Callable[[], str | Awaitable[str]]

_NAMES = """
armscii8 ascii big5 binary cp1250 cp1251 cp1256 cp1257 cp850 cp852 cp866 cp932 dec8 eucjpms euckr gb18030
gb2312 gbk geostd8 greek hebrew hp8 keybcs2 koi8r koi8u latin1 latin2 latin5 latin7 macce macroman sjis swe7
tis620 ujis utf8 utf8mb3 utf8mb4
"""
_CHARSETS = frozenset(_NAMES.split())


def _charset(value: object, where: str) -> str:
    """Accept the name of a character set that a connection can have."""
    name = text(value, where).lower()

    if name in _CHARSETS:
        return name

    close = difflib.get_close_matches(name, _CHARSETS, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ", such as 'utf8mb4'"
    message = f"{where} must be a character set of MySQL, not {name!r}{hint}"
    raise ConfigError(message, setting=where)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The mapping that ``ssl`` may be."""

    ca: str | None = option(None, text, "a file of certificates to trust")
    cert: str | None = option(None, text, "the client's certificate")
    key: str | None = option(None, text, "its key")
    check_hostname: bool = option(True, boolean, "whether the certificate must name the host")
    verify: bool = option(True, boolean, "whether the certificate is checked at all")


def _ssl(value: object, where: str) -> tls.SSLContext | None:
    """Return a context, for true one with the system's authorities, for a mapping one of its files."""
    if value is None or value is False:
        return None

    if isinstance(value, tls.SSLContext):
        return value

    if value is True or (isinstance(value, str) and boolean(value, where)):
        return tls.create_default_context()

    if isinstance(value, Mapping):
        files = parse(TlsFiles, value, where)

        try:
            context = tls.create_default_context(cafile=files.ca)

            if files.cert is not None:
                context.load_cert_chain(files.cert, files.key)
        except OSError as error:
            message = f"{where}: the certificates cannot be loaded: {error}"
            raise ConfigError(message, setting=where) from error

        context.check_hostname = files.check_hostname

        if not files.verify:
            context.check_hostname = False
            context.verify_mode = tls.CERT_NONE

        return context

    message = (
        f"{where} must be true, an ssl.SSLContext, or a mapping with ca, cert, key, check_hostname and verify"
    )
    raise ConfigError(message, setting=where)


@dataclass(frozen=True, slots=True)
class Server:
    """
    How to reach one server, and how its sessions begin.

    ``str(server)`` is fit for logs: it has no password.
    """

    host: str = option("localhost", text, "name or address of the server")
    port: int = option(3306, integer(1, 65535), "its port", shown="3306")
    user: Any = option(  # Any: a string, or a callable that returns one
        "",
        text_or_callable,
        "the login name, or a callable, also async, that returns it for each new connection",
        aliases=("username",),
    )
    password: Password | None = option(
        None,
        optional(text_or_callable),
        "as `user`; sent in UTF-8, in latin1 only with that `charset`",
        secret=True,
    )
    db: str | None = option(None, optional(text), "the default database", aliases=("database",))
    unix_socket: str | None = option(None, optional(text), "path of a socket, instead of host and port")
    driver: str = option("aiomysql", choice("aiomysql", "asyncmy"), "or in the URL: `mysql+asyncmy://`")
    charset: str = option("utf8mb4", _charset, "of each session, as the next three, after each reset too")
    sql_mode: str | None = option(None, optional(text), "the session's `sql_mode`")
    init_command: str | None = option(None, optional(text), "a statement run in each new session")
    autocommit: bool = option(
        True,
        boolean,
        "without it the server keeps only what is committed: single calls outside of `begin()` and "
        "`atomic` are rolled back when their client's block ends",
    )
    ssl: tls.SSLContext | None = option(
        None, _ssl, "true, an `SSLContext`, or a mapping with `ca cert key check_hostname verify`"
    )
    connect_timeout: float = option(5.0, number(0.001), "seconds to open a connection")
    local_infile: bool = option(
        False, boolean, "allow `load_data()`; no file is sent but the one that is given to it"
    )

    def __str__(self) -> str:
        place = self.unix_socket or f"{self.host}:{self.port}"
        user = self.user if isinstance(self.user, str) else "(callable)"
        return f"mysql://{user}@{place}/{self.db or ''}"


@dataclass(frozen=True)
class MysqlOptions(ServerOptions, Server):
    """All options of a MySQL pool."""

    url: str | None = option(
        None, text, "`mysql://user:password@host:3306/db`, with options in its query; keys beside it win"
    )

    def server(self) -> Server:
        """Return the part that says how to reach the server."""
        return Server(**{entry.name: getattr(self, entry.name) for entry in fields(Server)})


def mysql_options(section: Mapping[str, object], where: str) -> MysqlOptions:
    """Return the checked options of a MySQL pool; keys beside the URL win over its parts."""
    return parse_options(MysqlOptions, section, where, _from_url)


def _from_url(url: str, where: str) -> dict[str, object]:
    parts = url_parts(url, where)
    scheme, _, driver = parts.scheme.partition("+")

    if scheme not in {"mysql", "mariadb"}:
        message = f"{where} must begin with mysql:// or mariadb://, not {mask_url(url)!r}"
        raise ConfigError(message, setting=where)

    return url_options(parts, driver, host=parts.hostname, port=url_port(url, where))
