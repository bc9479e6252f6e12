"""The options of a Redis pool: read from a URL, an address or keys."""

from __future__ import annotations

import codecs
import ssl
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Final, Literal, cast
from urllib.parse import SplitResult, parse_qsl, unquote

from redis import utils
from redis.credentials import CredentialProvider

from ws_core.redaction import mask_url
from ws_pool._core.config import (
    boolean,
    check_sizes,
    choice,
    config_error,
    integer,
    number,
    observer,
    option,
    optional,
    parse_given,
    refuse,
    sequence,
    text,
    text_or_callable,
    url_parts,
    url_port,
)
from ws_pool._redis.connection.credentials import Credentials, CredentialSource
from ws_pool._redis.connection.endpoint import Endpoint
from ws_pool._redis.connection.queue import Limits

CacheMode = Literal["all", "opt_in", "broadcast"]
ReadFrom = Literal["master", "round_robin", "round_robin_replicas", "random_replica"]
_SCHEMES: Final = ("redis", "rediss", "valkey", "valkeys", "unix")
_LIMITS: Final = Limits()


def _address(value: object, where: str) -> object:
    if isinstance(value, str):
        return value

    if isinstance(value, list | tuple) and len(value) == 2:
        return text(value[0], where), integer(1, 65535)(value[1], where)

    raise config_error(where, "must be a URL, 'host:port', a (host, port) pair or the path of a unix socket")


def _credentials(value: object, where: str) -> object:
    if callable(value) or isinstance(value, CredentialProvider):
        return value

    what = "callable, or a CredentialProvider of redis-py: it returns the password, or user and password"
    raise config_error(where, f"must be {what}")


def _encoding(value: object, where: str) -> object:
    name = text(value, where)

    try:
        keeps_ascii = string.printable.encode(name) == string.printable.encode("ascii")
    except (LookupError, ValueError):
        keeps_ascii = False

    if keeps_ascii:
        return name

    message = (
        f"must be an encoding that keeps ASCII as it is, such as 'utf-8' or 'latin-1', not {name!r}:"
        " commands and replies hold words of Redis, which are ASCII"
    )
    raise config_error(where, message)


def _encoding_errors(value: object, where: str) -> str:
    name = text(value, where)

    try:
        codecs.lookup_error(name)
    except (LookupError, ValueError):
        message = f"must be a way of `str.encode`, such as 'strict' or 'replace', not {name!r}"
        raise config_error(where, message) from None

    return name


def _ssl(value: object, where: str) -> object:
    return value if isinstance(value, ssl.SSLContext) else boolean(value, where)


def _nodes(value: object, where: str, *, port_else: int) -> object:
    addresses = {f"{where}[{index}]": node for index, node in enumerate(sequence(value, where))}

    if not addresses:
        raise config_error(where, "is empty: name at least one")

    pairs = [_host_port(_address(node, place), place) for place, node in addresses.items()]
    return tuple((host, port_else if port is None else port) for host, port in pairs)


def _texts(value: object, where: str) -> object:
    return tuple(text(item, f"{where}[{index}]") for index, item in enumerate(sequence(value, where)))


_seconds = number(0.001)


@dataclass(frozen=True)
class RedisOptions:
    """How to reach a Redis server, and how its connections are used. No slots: properties are cached."""

    url: str | None = option(
        None, text, "`redis://` `rediss://` `valkey://` `valkeys://` `unix://`, with options in its query"
    )
    address: Any = option(  # Any: of the forms that the meaning names
        None, _address, "a URL, `host:port`, a pair of them, or the path of a socket"
    )
    host: str = option("localhost", text, "name or address of the server")
    port: int = option(6379, integer(1, 65535), "its port", shown="6379")
    path: str | None = option(None, text, "path of a socket, instead of host and port")
    db: int = option(0, integer(0), "number of the database")
    username: str | None = option(None, optional(text), "ACL user")
    password: Any = option(  # Any: a string, or a callable that returns one
        None, optional(text_or_callable), "or a callable that returns it for each new connection", secret=True
    )
    credentials: Credentials | None = option(
        None,
        optional(_credentials),
        "a callable, also async, that returns the password, or user and password, for each new connection; "
        "or a `CredentialProvider` of redis-py",
        secret=True,
        aliases=("credential_provider",),
    )
    reauth_interval: float | None = option(
        None,
        optional(_seconds),
        "seconds after which `credentials` are called again, and live connections log in with them",
    )
    ssl: Any = option(None, optional(_ssl), "true, or an `SSLContext`", shown="false")  # Any: one of these
    ssl_ca_certs: str | None = option(None, optional(text), "a file of certificates to trust")
    ssl_certfile: str | None = option(None, optional(text), "the client's certificate")
    ssl_keyfile: str | None = option(None, optional(text), "its key")
    ssl_check_hostname: bool = option(True, boolean, "whether the certificate must name the host")
    ssl_cert_reqs: str = option(
        "required", choice("none", "optional", "required"), "whether the certificate is checked"
    )
    encoding: str = option(
        None,
        optional(_encoding),
        "of text; given alone it decodes replies, as in wintersweet 1",
        shown="utf-8",
    )
    encoding_errors: str = option("strict", _encoding_errors, "as of `str.encode`")
    decode_responses: bool = option(None, optional(boolean), "whether replies are text", shown="false")
    protocol: int | None = option(
        None,
        optional(integer(2, 3)),
        "RESP 2 or 3; replies have the shapes that the installed redis-py returns for it",
        shown="redis-py's",
    )
    client_name: str | None = option(None, optional(text), "shown in `CLIENT LIST`")
    shared_connections: int = option(
        1,
        integer(1, 64),
        "with two, reads don't wait behind writes; with three, neither waits behind large values; see below",
    )
    min_size: int = option(0, integer(0), "dedicated connections kept open", aliases=("minsize",))
    max_size: int = option(50, integer(1), "most dedicated connections", aliases=("maxsize",))
    acquire_timeout: float = option(
        _LIMITS.queue_timeout, _seconds, "seconds to wait for one, or for room on the shared connection"
    )
    connect_timeout: float = option(
        _LIMITS.connect_timeout, _seconds, "seconds for a connect and its handshake"
    )
    command_timeout: float = option(
        _LIMITS.command_timeout,
        _seconds,
        "seconds without any reply while one is due, after which the connection is dropped",
    )
    outage_timeout: float = option(
        _LIMITS.outage_timeout,
        number(0),
        "seconds that commands wait during an outage before they fail; later ones fail at once",
    )
    max_pending: int = option(_LIMITS.max_pending, integer(1), "commands in flight on a shared connection")
    max_bytes: int = option(
        _LIMITS.max_bytes,
        integer(1024),
        "bytes of commands above 1 KiB in flight on it, and again in its queue",
        shown="64 MiB",
    )
    max_queue: int = option(_LIMITS.max_queue, integer(0), "commands queued before it")
    leak_threshold: float | None = option(
        None, optional(_seconds), "seconds of one lease after which a warning shows where it was acquired"
    )
    prefix: str = option("", text, "put before all keys and channels, and taken off in replies; see below")
    on_command: Callable[[str, float, BaseException | None], object] | None = option(
        None, optional(observer), "called at the end of each command with its name, its seconds and its error"
    )
    retry: Literal["safe", "at_least_once"] = option("safe", choice("safe", "at_least_once"), "see below")
    sentinels: tuple[tuple[str, int], ...] = option(
        (), partial(_nodes, port_else=26379), "see below; with `service`"
    )
    service: str = option("", text, "name of the master with Sentinel")
    sentinel_username: str | None = option(None, optional(text), "ACL user of the Sentinels")
    sentinel_password: str | None = option(None, optional(text), "their password", secret=True)
    cluster: bool = option(False, boolean, "whether the server is a node of a cluster; see below")
    seeds: tuple[tuple[str, int], ...] = option(
        (), partial(_nodes, port_else=6379), "nodes of the cluster to ask first"
    )
    read_from: ReadFrom = option(
        "master",
        choice("master", "round_robin", "round_robin_replicas", "random_replica"),
        "which servers execute commands that only read, with Sentinel or a cluster; see below",
    )
    cache: int = option(0, integer(0), "most replies kept in this process; 0 for none")
    cache_mode: CacheMode = option(
        "all", choice("all", "opt_in", "broadcast"), "which reads are cached; see below"
    )
    cache_prefixes: tuple[str, ...] = option(
        (), _texts, "beginnings of the keys that are cached, with `broadcast`; all keys by default", shown="–"
    )
    cache_ttl: float = option(60.0, _seconds, "seconds that a reply is kept at most")

    names_node: bool = False  # not an option: whether host, port or path were given

    @cached_property
    def endpoint(self) -> Endpoint:
        """The server, and how to log in."""
        password, credentials = self.password, self.credentials

        if callable(password):
            password, credentials = None, cast("Credentials", password)

        source = None if credentials is None else CredentialSource(credentials, self.username)

        return Endpoint(
            host=self.host,
            port=self.port,
            path=self.path,
            db=self.db,
            username=self.username,
            password=password,
            credentials=source,
            tls=self.ssl,
            client_name=self.client_name,
            protocol=3 if self.cache else _installed_protocol() if self.protocol is None else self.protocol,
            tracking=bool(self.cache),
            broadcast=(
                tuple(self.prefix + prefix for prefix in self.cache_prefixes or ("",))
                if self.cache_mode == "broadcast"
                else ()
            ),
            role="master" if self.sentinels else None,  # a Sentinel may not know of a fail-over yet
        )

    @cached_property
    def sentinel_endpoint(self) -> Endpoint:
        """How to log in at a Sentinel."""
        return Endpoint(
            username=self.sentinel_username, password=self.sentinel_password, protocol=2, tls=self.ssl
        )

    @cached_property
    def seed_endpoints(self) -> tuple[Endpoint, ...]:
        """The nodes of a cluster to ask first."""
        seeds = tuple(self.endpoint.at(*address) for address in self.seeds)
        # Without a host, localhost is only the default: beside seeds nobody has named it.
        return (self.endpoint, *seeds) if self.names_node or not seeds else seeds

    @cached_property
    def limits(self) -> Limits:
        """The bounds of the shared connections."""
        return Limits(
            max_pending=self.max_pending,
            max_bytes=self.max_bytes,
            max_queue=self.max_queue,
            command_timeout=self.command_timeout,
            connect_timeout=self.connect_timeout,
            queue_timeout=self.acquire_timeout,
            outage_timeout=self.outage_timeout,
        )


def redis_options(section: Mapping[str, object], *, where: str) -> RedisOptions:
    """Return the checked options of a pool; those within its URL count as well."""
    given = parse_given(RedisOptions, section, where)
    address = given.pop("address", None)
    url = given.pop("url", None)

    refuse(where, {"{url} and {address} say the same: keep one of them": None not in (url, address)})

    if isinstance(address, str) and "://" in address:
        url, address = address, None

    if url is not None:
        key = f"{where}.url"
        within = parse_given(RedisOptions, _from_url(url, key), key)

        for name in within.keys() & given.keys():
            raise config_error(f"{where}.{name}", "is given, and in the URL as well: keep one of them")

        given |= within
    elif address is not None:
        given |= _from_address(address, f"{where}.address")

    options = RedisOptions(**given)
    _check_together(options, given, section, where)
    decode = given.get("decode_responses")
    return replace(
        options,
        ssl=_context(options, where),
        encoding=options.encoding or "utf-8",
        decode_responses=bool(given.get("encoding")) if decode is None else decode,
        # Client-side caching needs RESP3, and redis-py must then expect its shapes.
        protocol=3
        if options.cache and options.protocol is None and _installed_protocol() == 2
        else options.protocol,
        names_node=bool(given.keys() & {"host", "port", "path"}),
    )


def _check_together(
    options: RedisOptions, given: Mapping[str, object], section: Mapping[str, object], where: str
) -> None:
    """Refuse options that exclude or need each other."""
    check_sizes(RedisOptions, section, where, minimum=options.min_size, maximum=options.max_size)
    cluster, sentinels, service = options.cluster, options.sentinels, options.service
    cache, mode = options.cache, options.cache_mode
    replicas = options.read_from != "master"
    password, credentials = options.password, options.credentials
    both = credentials is not None and password is not None
    is_fixed = credentials is None and not callable(password)
    refuse(
        where,
        {
            "{cluster} and {sentinels} exclude each other": cluster and sentinels,
            "{service} is missing: Sentinel needs both": sentinels and not service,
            "{sentinels} is missing: Sentinel needs both": service and not sentinels,
            "{seeds} needs {cluster}": options.seeds and not cluster,
            "{db} must be 0: a cluster has one database": cluster and options.db,
            "{reauth_interval} needs {credentials}": options.reauth_interval and is_fixed,
            "{credentials} and {password} exclude each other": both,
            "{read_from} needs {cluster} or {sentinels}": replicas and not (cluster or sentinels),
            "{read_from} and {cache} exclude each other: a replica may report a change after the master has"
            " replied": replicas and cache,
            "{cache_mode} needs {cache}": mode != "all" and not cache,
            '{cache_prefixes} needs {cache_mode}="broadcast"': options.cache_prefixes and mode != "broadcast",
            "{cache} needs RESP3: leave {protocol} out": cache and options.protocol == 2,
        },
    )
    _check_tls(options, given, where)

    # The server would take the connection of a user without a password for the default user's.
    without = options.username and password is None and credentials is None
    without_for_sentinel = options.sentinel_username and options.sentinel_password is None
    refuse(
        where,
        {
            '{username} needs {password}; for a user with nopass give ""': without,
            '{sentinel_username} needs {sentinel_password}; for a user with nopass give ""': (
                without_for_sentinel
            ),
        },
    )


def _check_tls(options: RedisOptions, given: Mapping[str, object], where: str) -> None:
    """Refuse protections that would not protect."""
    is_ready = isinstance(options.ssl, ssl.SSLContext)
    is_unchecked = options.ssl_cert_reqs == "none"
    rules: dict[str, object] = {}

    # The last two have defaults, so only what was given asks for protection.
    names = [
        *(name for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile") if getattr(options, name)),
        *(name for name in ("ssl_cert_reqs", "ssl_check_hostname") if name in given),
    ]

    for name in names:
        rules |= {
            f"{{{name}}} needs rediss:// or {{ssl}}: the connection would not be encrypted": not options.ssl,
            f"{{{name}}} and the SSLContext of {{ssl}} say the same: keep one of them": is_ready,
        }

    rules |= {
        "{ssl_keyfile} needs {ssl_certfile}": options.ssl_keyfile and not options.ssl_certfile,
        '{ssl_ca_certs} and {ssl_cert_reqs}="none" exclude each other: keep one': is_unchecked
        and options.ssl_ca_certs,
        '{ssl_check_hostname} and {ssl_cert_reqs}="none" exclude each other: keep one': is_unchecked
        and given.get("ssl_check_hostname"),
    }
    refuse(where, rules)


def _installed_protocol() -> int:
    """Return the RESP version that the installed redis-py takes by default."""
    return int(getattr(utils, "DEFAULT_RESP_VERSION", 2))


def _from_url(url: str, where: str) -> dict[str, object]:
    parts = url_parts(url, where)

    if parts.scheme not in _SCHEMES:
        schemes = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
        raise config_error(where, f"must begin with one of {schemes}, not {mask_url(url)!r}")

    # What would be dropped may be the end of a password, or another server.
    if "#" in url:
        raise config_error(where, "must not have #: in a password it is written %23")

    if "," in (parts.hostname or ""):
        raise config_error(where, "names one host: give the others as seeds of a cluster, or as sentinels")

    found: list[tuple[str, object]] = [*parse_qsl(parts.query, keep_blank_values=True), *_login(parts)]

    if parts.scheme == "unix":
        if parts.hostname:
            message = f": {mask_url(url)!r} must be like unix:///path/of/the.sock, with three slashes"
            raise config_error(where, message)

        return _once([*found, ("path", unquote(parts.path))], where)

    if parts.hostname:
        found.append(("host", unquote(parts.hostname)))

    if (port := url_port(url, where)) is not None:
        found.append(("port", port))

    if parts.path.strip("/"):
        found.append(("db", unquote(parts.path).strip("/")))

    if parts.scheme in {"rediss", "valkeys"}:
        found.append(("ssl", True))

    return _once(found, where)


def _login(parts: SplitResult) -> Iterator[tuple[str, object]]:
    if parts.username:
        yield "username", unquote(parts.username)

    # An empty password is one, too, behind a user: users with nopass log in with any.
    if parts.password or (parts.username and parts.password is not None):
        yield "password", unquote(parts.password)


def _once(found: list[tuple[str, object]], where: str) -> dict[str, object]:
    """Return options by name; refuse one that a URL has twice."""
    names = [name for name, _ in found]

    for name in names:
        if names.count(name) > 1:
            raise config_error(where, f"has {name} twice: keep one of them")

    return dict(found)


def _from_address(address: object, where: str) -> dict[str, object]:
    if isinstance(address, str) and address.startswith("/"):
        return {"path": address}

    host, port = _host_port(address, where)
    return {"host": host} if port is None else {"host": host, "port": port}


def _host_port(address: object, where: str) -> tuple[str, int | None]:
    if isinstance(address, tuple):
        return cast("tuple[str, int]", address)

    text = str(address)
    host, colon, port = text.rpartition(":")

    if text.endswith("]") or not colon or (":" in host and not host.endswith("]")):
        return text.strip("[]"), None  # a name, or an IPv6 address without a port

    return host.strip("[]"), cast("int", integer(1, 65535)(port, where))


def _context(options: RedisOptions, where: str) -> ssl.SSLContext | None:
    if isinstance(options.ssl, ssl.SSLContext):
        return options.ssl

    if not options.ssl:
        return None

    context = ssl.create_default_context()
    # Names first: a context that checks them refuses to leave certificates unchecked.
    context.check_hostname = options.ssl_check_hostname and options.ssl_cert_reqs != "none"
    context.verify_mode = ssl.VerifyMode[f"CERT_{options.ssl_cert_reqs.upper()}"]

    loads: dict[str, Callable[[str], None]] = {
        "ssl_ca_certs": context.load_verify_locations,
        "ssl_certfile": lambda file: context.load_cert_chain(file, options.ssl_keyfile),
    }

    for name, load in loads.items():
        if file := getattr(options, name):
            try:
                load(file)
            except (OSError, ssl.SSLError) as error:
                raise config_error(f"{where}.{name}", f": cannot load {file!r}: {error}") from error

    return context
