"""The options of a Redis pool: checked, completed and frozen before anything happens."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from redis import utils

from ws_pool._core import config as check
from ws_pool._redis.connection.endpoint import Credentials, Endpoint
from ws_pool._redis.connection.queue import Limits
from ws_pool.errors import ConfigError

__all__ = ("CHECKS", "RedisOptions", "redis_options")

_SCHEMES: Final = ("redis", "rediss", "valkey", "valkeys", "unix")


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """
    The checked options of a Redis pool.

    Args:
        endpoint: Where the server is and how to greet it.
        limits: Bounds of the shared connections.
        encoding: Of text.
        encoding_errors: What to do with text that can't be encoded or decoded.
        decode_responses: Whether replies are text.
        protocol: The RESP version as it was given.
        shared_connections: How many connections are shared.
        min_size: Connections kept open to be lent.
        max_size: Most connections to be lent.
        acquire_timeout: Seconds to wait for a connection of one's own.
        leak_threshold: Seconds of one lease after which a warning tells where it was taken.
        retry: What to do with commands of a lost connection.
        sentinels: Where to ask for the master; empty without Sentinel.
        service: The master's name with Sentinel.
        sentinel_endpoint: How to greet Sentinels.
        cluster: Whether the server is a node of a cluster.
        seeds: The nodes of a cluster to ask first.
        cache: Most replies kept in the client-side cache; 0 for none.
        cache_ttl: Seconds to keep one at most.
    """

    endpoint: Endpoint
    limits: Limits
    encoding: str
    encoding_errors: str
    decode_responses: bool
    protocol: int | None
    shared_connections: int
    min_size: int
    max_size: int
    acquire_timeout: float
    leak_threshold: float | None
    retry: Literal["safe", "at_least_once"]
    sentinels: tuple[tuple[str, int], ...]
    service: str
    sentinel_endpoint: Endpoint
    cluster: bool
    seeds: tuple[Endpoint, ...]
    cache: int
    cache_ttl: float


def _address(value: object, where: str) -> object:
    if isinstance(value, str):
        return value

    if isinstance(value, list | tuple) and len(value) == 2:
        return check.text(value[0], where), check.integer(1, 65535)(value[1], where)

    message = f"{where} must be a URL, 'host:port', a (host, port) pair or the path of a unix socket"
    raise ConfigError(message, setting=where)


def _credentials(value: object, where: str) -> object:
    if callable(value):
        return value

    raise ConfigError(f"{where} must be callable: it gives the password, or user and password", setting=where)


def _tls(value: object, where: str) -> object:
    return value if isinstance(value, ssl.SSLContext) else check.boolean(value, where)


def _nodes(value: object, where: str, *, port_else: int) -> object:
    nodes: list[tuple[str, int]] = []

    for index, node in enumerate(check.sequence(value, where)):
        host, port = _host_port(_address(node, f"{where}[{index}]"), f"{where}[{index}]")
        nodes.append((host, port if port is not None else port_else))

    if not nodes:
        raise ConfigError(f"{where} is empty: name at least one", setting=where)

    return tuple(nodes)


_seconds = check.number(0.001)

CHECKS: Final[Mapping[str, check.Check]] = {
    "url": check.text,
    "address": _address,
    "host": check.text,
    "port": check.integer(1, 65535),
    "path": check.text,
    "db": check.integer(0),
    "username": check.optional(check.text),
    "password": check.optional(check.text_or_callable),
    "credentials": check.optional(_credentials),
    "ssl": check.optional(_tls),
    "ssl_ca_certs": check.optional(check.text),
    "ssl_certfile": check.optional(check.text),
    "ssl_keyfile": check.optional(check.text),
    "ssl_check_hostname": check.boolean,
    "ssl_cert_reqs": check.choice("none", "optional", "required"),
    "encoding": check.optional(check.text),
    "encoding_errors": check.text,
    "decode_responses": check.optional(check.boolean),
    "protocol": check.optional(check.integer(2, 3)),
    "client_name": check.optional(check.text),
    "shared_connections": check.integer(1, 64),
    "min_size": check.integer(0),
    "max_size": check.integer(1),
    "acquire_timeout": _seconds,
    "connect_timeout": _seconds,
    "command_timeout": _seconds,
    "outage_timeout": check.number(0),
    "max_pending": check.integer(1),
    "max_bytes": check.integer(1024),
    "max_queue": check.integer(0),
    "leak_threshold": check.optional(_seconds),
    "retry": check.choice("safe", "at_least_once"),
    "sentinels": partial(_nodes, port_else=26379),
    "service": check.text,
    "sentinel_username": check.optional(check.text),
    "sentinel_password": check.optional(check.text),
    "cluster": check.boolean,
    "seeds": partial(_nodes, port_else=6379),
    "cache": check.integer(0),
    "cache_ttl": _seconds,
}
"""Every option with its check."""

_ALIASES: Final = {"minsize": "min_size", "maxsize": "max_size"}


def redis_options(section: Mapping[str, object], *, where: str) -> RedisOptions:
    """
    Check the options of a pool.

    Args:
        section: The options as the user wrote them; those within the URL count as well.
        where: The section's full name, such as ``REDIS_CONFIG.default``.

    Returns:
        The settings.

    Raises:
        ConfigError: A wrong option; the message names it.
    """
    given = check.options_of(section, CHECKS, where=where, aliases=_ALIASES)
    address = given.pop("address", None)
    url = given.pop("url", None)

    if url is not None and address is not None:
        raise ConfigError(
            f"{where}.url and {where}.address say the same: keep one of them", setting=f"{where}.url"
        )

    if isinstance(address, str) and "://" in address:
        url, address = address, None

    if url is not None:
        key = f"{where}.url"
        within = check.options_of(_from_url(cast("str", url), key), CHECKS, where=key, aliases=_ALIASES)

        for option in within.keys() & given.keys():
            message = f"{where}.{option} is given, and in the URL as well: keep one of them"
            raise ConfigError(message, setting=f"{where}.{option}")

        given |= within
    elif address is not None:
        given |= _from_address(address, f"{where}.address")

    return _settings(given, where)


def _settings(given: Mapping[str, Any], where: str) -> RedisOptions:  # Any: checked values
    cluster = bool(given.get("cluster"))
    sentinels = given.get("sentinels", ())
    cache = given.get("cache", 0)
    protocol = given.get("protocol")
    wire: int = (
        protocol if protocol is not None else getattr(utils, "DEFAULT_RESP_VERSION", 2)
    )  # what the installed redis-py does
    min_size, max_size = given.get("min_size", 0), given.get("max_size", 50)
    check.check_sizes(min_size, max_size, where=where)

    if cluster and sentinels:
        raise ConfigError(
            f"{where}.cluster and {where}.sentinels exclude each other", setting=f"{where}.cluster"
        )

    if bool(sentinels) != bool(given.get("service")):
        key = "service" if sentinels else "sentinels"
        raise ConfigError(f"{where}.{key} is missing: Sentinel needs both", setting=f"{where}.{key}")

    if given.get("seeds") and not cluster:
        raise ConfigError(f"{where}.seeds needs {where}.cluster", setting=f"{where}.seeds")

    if cluster and given.get("db"):
        raise ConfigError(f"{where}.db must be 0: a cluster has one database", setting=f"{where}.db")

    if cache and protocol == 2:
        raise ConfigError(f"{where}.cache needs RESP3: leave {where}.protocol out", setting=f"{where}.cache")

    decode = given.get("decode_responses")
    tls = _context(given, where)
    password, credentials = given.get("password"), given.get("credentials")

    if callable(password):
        password, credentials = None, password

    endpoint = Endpoint(
        host=given.get("host", "localhost"),
        port=given.get("port", 6379),
        path=given.get("path"),
        db=given.get("db", 0),
        username=given.get("username"),
        password=password,
        credentials=cast("Credentials | None", credentials),
        tls=tls,
        client_name=given.get("client_name"),
        protocol=3 if cache else wire,
        tracking=bool(cache),
        role="master" if sentinels else None,
    )
    defaults = Limits()
    limits = Limits(
        max_pending=given.get("max_pending", defaults.max_pending),
        max_bytes=given.get("max_bytes", defaults.max_bytes),
        max_queue=given.get("max_queue", defaults.max_queue),
        command_timeout=given.get("command_timeout", defaults.command_timeout),
        connect_timeout=given.get("connect_timeout", defaults.connect_timeout),
        queue_timeout=given.get("acquire_timeout", defaults.queue_timeout),
        outage_timeout=given.get("outage_timeout", defaults.outage_timeout),
    )
    return RedisOptions(
        endpoint=endpoint,
        limits=limits,
        encoding=given.get("encoding") or "utf-8",
        encoding_errors=given.get("encoding_errors", "strict"),
        decode_responses=bool(given.get("encoding")) if decode is None else decode,
        protocol=3 if cache and protocol is None and wire == 2 else protocol,
        shared_connections=given.get("shared_connections", 1),
        min_size=min_size,
        max_size=max_size,
        acquire_timeout=given.get("acquire_timeout", 30.0),
        leak_threshold=given.get("leak_threshold"),
        retry=given.get("retry", "safe"),
        sentinels=sentinels,
        service=given.get("service", ""),
        sentinel_endpoint=Endpoint(
            username=given.get("sentinel_username"),
            password=given.get("sentinel_password"),
            protocol=2,
            tls=tls,
        ),
        cluster=cluster,
        seeds=_seeds(endpoint, given),
        cache=cache,
        cache_ttl=given.get("cache_ttl", 60.0),
    )


def _seeds(endpoint: Endpoint, given: Mapping[str, Any]) -> tuple[Endpoint, ...]:  # Any: checked values
    """List the nodes of a cluster to ask: the one that is named by itself, and the others."""
    others = tuple(endpoint.at(*address) for address in given.get("seeds", ()))
    return (endpoint, *others) if not others or given.keys() & {"host", "port", "path"} else others


def _from_url(url: str, where: str) -> dict[str, object]:
    parts = urlsplit(url)

    if parts.scheme not in _SCHEMES:
        schemes = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
        raise ConfigError(f"{where} must begin with one of {schemes}, not {parts.scheme!r}", setting=where)

    found: dict[str, object] = dict(parse_qsl(parts.query, keep_blank_values=True))
    port = check.url_port(url, where)

    if parts.username:
        found["username"] = unquote(parts.username)

    if parts.password:
        found["password"] = unquote(parts.password)

    if parts.scheme == "unix":
        found["path"] = unquote(parts.path)
        return found

    if parts.hostname:
        found["host"] = unquote(parts.hostname)

    if port is not None:
        found["port"] = port

    if parts.path.strip("/"):
        found.setdefault("db", unquote(parts.path).strip("/"))

    if parts.scheme in {"rediss", "valkeys"}:
        found["ssl"] = True

    return found


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

    return host.strip("[]"), cast("int", check.integer(1, 65535)(port, where))


def _context(given: Mapping[str, Any], where: str) -> ssl.SSLContext | None:
    tls = given.get("ssl")

    if isinstance(tls, ssl.SSLContext):
        return tls

    if not tls:
        return None

    context = ssl.create_default_context()
    requirement = given.get("ssl_cert_reqs", "required")
    context.check_hostname = given.get("ssl_check_hostname", True) and requirement == "required"
    context.verify_mode = ssl.VerifyMode[f"CERT_{requirement.upper()}"]

    for option, load in (
        ("ssl_ca_certs", context.load_verify_locations),
        ("ssl_certfile", _chain(context, given)),
    ):
        if file := given.get(option):
            try:
                load(file)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(
                    f"{where}.{option}: cannot load {file!r}: {error}", setting=f"{where}.{option}"
                ) from error

    return context


def _chain(context: ssl.SSLContext, given: Mapping[str, Any]) -> Callable[[str], None]:
    return lambda file: context.load_cert_chain(file, given.get("ssl_keyfile"))
