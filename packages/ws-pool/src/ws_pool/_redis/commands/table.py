"""What the multiplexed connection must know about commands: who may share it, who may be repeated.

The tables are those of Redis 7 and Valkey 9. A command that is not in them shares the connection
and is taken for one that writes, which is the careful choice for the commands of modules.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any  # Any: a command's arguments

__all__ = (
    "Route",
    "block_seconds",
    "canonical",
    "is_read_only",
    "needs_arguments",
    "routing_of",
    "split",
    "stream_options",
)


class Route(enum.Enum):
    """Where a command must run."""

    SHARED = "shared"
    """On the shared connection, between everybody else's."""

    BLOCKING = "blocking"
    """On a leased connection: the server answers when it likes."""

    SESSION = "session"
    """On a leased connection that is closed afterwards: it changes the session."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BLOCKING = _words("BLPOP BRPOP BRPOPLPUSH BLMOVE BLMPOP BZPOPMIN BZPOPMAX BZMPOP WAIT WAITAOF MIGRATE") | {
    "CLIENT PAUSE",
    "DEBUG SLEEP",
}
_MAY_BLOCK = _words("XREAD XREADGROUP")
_SESSION = _words(
    "MULTI EXEC DISCARD WATCH UNWATCH SELECT AUTH HELLO RESET QUIT MONITOR READONLY READWRITE ASKING SHUTDOWN"
    " SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE SYNC PSYNC REPLCONF"
) | {
    "CLIENT REPLY",
    "CLIENT TRACKING",
    "CLIENT TRACKINGINFO",
    "CLIENT CACHING",
    "CLIENT SETNAME",
    "CLIENT SETINFO",
    "CLIENT NO-EVICT",
    "CLIENT NO-TOUCH",
    "CLIENT CAPA",
    "CLIENT IMPORT-SOURCE",
    "SCRIPT DEBUG",
    "HIMPORT PREPARE",
    "HIMPORT SET",
    "HIMPORT DISCARD",
    "HIMPORT DISCARDALL",
}
_CONTAINERS = _words(
    "ACL CLIENT CLUSTER COMMAND CONFIG DEBUG FUNCTION HIMPORT LATENCY MEMORY MODULE OBJECT PUBSUB SCRIPT"
    " SENTINEL SLOWLOG XGROUP XINFO"
)

_READ_ONLY = _words(
    "GET MGET STRLEN GETRANGE SUBSTR LCS EXISTS TYPE TTL PTTL EXPIRETIME PEXPIRETIME KEYS SCAN RANDOMKEY"
    " DBSIZE DUMP HGET HMGET HGETALL HKEYS HVALS HLEN HEXISTS HSTRLEN HRANDFIELD HSCAN HTTL HPTTL HEXPIRETIME"
    " HPEXPIRETIME LLEN LRANGE LINDEX LPOS SCARD SISMEMBER SMISMEMBER SMEMBERS SRANDMEMBER SSCAN SDIFF SINTER"
    " SINTERCARD SUNION"
    " ZCARD ZCOUNT ZLEXCOUNT ZRANGE ZRANGEBYSCORE ZRANGEBYLEX ZREVRANGE ZREVRANGEBYSCORE ZREVRANGEBYLEX ZRANK"
    " ZREVRANK ZSCORE ZMSCORE ZSCAN ZRANDMEMBER ZDIFF ZINTER ZINTERCARD ZUNION"
    " GEOPOS GEODIST GEOHASH GEOSEARCH GEORADIUS_RO GEORADIUSBYMEMBER_RO BITCOUNT BITPOS GETBIT BITFIELD_RO"
    " PFCOUNT XLEN XRANGE XREVRANGE XPENDING XREAD EVAL_RO EVALSHA_RO FCALL_RO SORT_RO"
    " PING ECHO TIME INFO LASTSAVE ROLE LOLWUT COMMAND"
) | {
    "ACL CAT",
    "ACL GETUSER",
    "ACL LIST",
    "ACL USERS",
    "ACL WHOAMI",
    "CLIENT GETNAME",
    "CLIENT ID",
    "CLIENT INFO",
    "CLIENT LIST",
    "CLUSTER COUNTKEYSINSLOT",
    "CLUSTER GETKEYSINSLOT",
    "CLUSTER INFO",
    "CLUSTER KEYSLOT",
    "CLUSTER MYID",
    "CLUSTER NODES",
    "CLUSTER SHARDS",
    "CLUSTER SLOTS",
    "COMMAND COUNT",
    "COMMAND DOCS",
    "COMMAND GETKEYS",
    "COMMAND INFO",
    "COMMAND LIST",
    "CONFIG GET",
    "FUNCTION DUMP",
    "FUNCTION LIST",
    "FUNCTION STATS",
    "MEMORY STATS",
    "MEMORY USAGE",
    "OBJECT ENCODING",
    "OBJECT FREQ",
    "OBJECT IDLETIME",
    "OBJECT REFCOUNT",
    "PUBSUB CHANNELS",
    "PUBSUB NUMPAT",
    "PUBSUB NUMSUB",
    "PUBSUB SHARDCHANNELS",
    "PUBSUB SHARDNUMSUB",
    "SCRIPT EXISTS",
    "SLOWLOG GET",
    "SLOWLOG LEN",
    "XINFO CONSUMERS",
    "XINFO GROUPS",
    "XINFO STREAM",
}

_TIMEOUT_LAST = _words("BLPOP BRPOP BRPOPLPUSH BLMOVE BZPOPMIN BZPOPMAX")
_TIMEOUT_FIRST = _words("BLMPOP BZMPOP")
_WIDTHS = {"GROUP": 3, "COUNT": 2, "BLOCK": 2, "CLAIM": 2}  # words of an option with its values
_TIMEOUT_MILLISECONDS = {"WAIT": 2, "WAITAOF": 3, "MIGRATE": 5}


def split(args: Sequence[Any]) -> Sequence[Any]:
    """
    Take the name apart when it is of several words, as redis-py does before it sends a command.

    Args:
        args: The command; its name may hold arguments as well ("SELECT 3").

    Returns:
        The words as the server gets them.

    Example:
        >>> split(("CLIENT ID",)), split(("GET a",)), split(("GET", "a"))
        (('CLIENT', 'ID'), ('GET', 'a'), ('GET', 'a'))
    """
    name = args[0]

    if (isinstance(name, str) and " " in name) or (isinstance(name, bytes) and b" " in name):
        return (*name.split(), *args[1:]) if name.strip() else args

    return args


def canonical(args: Sequence[object]) -> str:
    """
    Give a command's name as the tables have it.

    Args:
        args: The command; its name may be str or bytes, in any case, of one or two words.

    Returns:
        The upper-case name, of two words for commands that have subcommands.

    Example:
        >>> canonical(("client", "id")), canonical(("CLIENT ID",)), canonical((b"get", b"key"))
        ('CLIENT ID', 'CLIENT ID', 'GET')
    """
    args = split(args)
    name = _text(args[0])
    return f"{name} {_text(args[1])}" if name in _CONTAINERS and len(args) > 1 else name


def needs_arguments(name: object) -> bool:
    """
    Tell whether the first argument alone does not say where a command must run.

    Args:
        name: The first argument of a command, of one word or of several.

    Returns:
        Whether `routing_of` needs the arguments too.
    """
    first, *rest = _text(name).split() or ("",)
    return first in _MAY_BLOCK or (first in _CONTAINERS and not rest)


def routing_of(args: Sequence[object]) -> Route:
    """
    Tell where a command must run.

    Args:
        args: The command.

    Returns:
        The route.

    Example:
        >>> routing_of(("XREAD", "COUNT", 1, "STREAMS", "block", "0"))
        <Route.SHARED: 'shared'>
        >>> routing_of(("XREAD", "BLOCK", 0, "STREAMS", "events", "$"))
        <Route.BLOCKING: 'blocking'>
    """
    name = canonical(args)

    if name in _BLOCKING or (name in _MAY_BLOCK and "BLOCK" in stream_options(args)):
        return Route.BLOCKING

    return Route.SESSION if name in _SESSION else Route.SHARED


def is_read_only(args: Sequence[object]) -> bool:
    """
    Tell whether running a command twice is the same as running it once.

    Args:
        args: The command.

    Returns:
        Whether it only reads.
    """
    return canonical(args) in _READ_ONLY


def block_seconds(args: Sequence[object]) -> float | None:
    """
    Tell how long the server may take over a blocking command.

    Args:
        args: The command.

    Returns:
        Seconds, or None when it may wait for ever (a timeout of 0) or the command is malformed.

    Example:
        >>> block_seconds(("BLPOP", "queue", 1.5))
        1.5
        >>> block_seconds(("XREAD", "BLOCK", 250, "STREAMS", "events", "$"))
        0.25
    """
    name = canonical(args)
    args = split(args)
    value: object = None
    scale = 1.0

    if name in _TIMEOUT_LAST:
        value = args[-1]
    elif name in _TIMEOUT_FIRST and len(args) > 1:
        value = args[1]
    elif name in _MAY_BLOCK:
        at = stream_options(args).get("BLOCK", len(args)) + 1
        value, scale = (args[at] if at < len(args) else None), 1e-3
    elif name in _TIMEOUT_MILLISECONDS and len(args) > _TIMEOUT_MILLISECONDS[name]:
        value, scale = args[_TIMEOUT_MILLISECONDS[name]], 1e-3

    try:
        seconds = float(_text(value)) * scale
    except ValueError:
        return None

    return seconds if seconds > 0 else None


def stream_options(args: Sequence[Any]) -> dict[str, int]:
    """
    Find the options of XREAD and XREADGROUP; groups, consumers and streams may be called like options.

    Args:
        args: The command.

    Returns:
        Where each option stands in `split`'s words, STREAMS being the last one.

    Example:
        >>> stream_options(("XREADGROUP", "GROUP", "streams", "block", "STREAMS", "events", ">"))
        {'GROUP': 1, 'STREAMS': 4}
    """
    args = split(args)
    found: dict[str, int] = {}
    index = 1

    while index < len(args) and "STREAMS" not in found:
        word = _text(args[index])
        found[word] = index
        index += _WIDTHS.get(word, 1)

    return found


def _text(value: object) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "replace").upper()

    return str(value).upper()
