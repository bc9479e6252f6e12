"""Tables of Redis commands: which may share a connection, which may be repeated. Pure data.

The tables are those of Redis 7 and Valkey 9. A command that is not in them shares the connection and
counts as a write, which is the careful choice for commands of modules.
"""

from __future__ import annotations

import enum
from typing import Final


class Route(enum.Enum):
    """Where a command must run."""

    SHARED = "shared"  # on a shared connection, between the commands of other tasks
    BLOCKING = "blocking"  # on a dedicated connection: the server may answer much later
    SESSION = "session"  # on a dedicated connection that is closed afterwards: it changes the session


def words(text: str, **subcommands: str) -> frozenset[str]:
    """
    Return the names of commands: of those with one word, and of those with two, by their first word.

    Example:
        >>> sorted(words("GET SET", CLIENT="ID INFO"))
        ['CLIENT ID', 'CLIENT INFO', 'GET', 'SET']
    """
    two = (f"{first} {second}" for first, seconds in subcommands.items() for second in seconds.split())
    return frozenset((*text.split(), *two))


BLOCKING: Final = words(
    "BLPOP BRPOP BRPOPLPUSH BLMOVE BLMPOP BZPOPMIN BZPOPMAX BZMPOP WAIT WAITAOF MIGRATE",
    CLIENT="PAUSE",
    DEBUG="SLEEP",
)
MAY_BLOCK: Final = words("XREAD XREADGROUP")
SESSION: Final = words(
    "MULTI EXEC DISCARD WATCH UNWATCH SELECT AUTH HELLO RESET QUIT MONITOR READONLY READWRITE ASKING SHUTDOWN"
    " SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE SYNC PSYNC REPLCONF",
    CLIENT="REPLY TRACKING TRACKINGINFO CACHING SETNAME SETINFO NO-EVICT NO-TOUCH CAPA IMPORT-SOURCE",
    SCRIPT="DEBUG",
    HIMPORT="PREPARE SET DISCARD DISCARDALL",
)
CONTAINERS: Final = words(
    "ACL CLIENT CLUSTER COMMAND CONFIG DEBUG FUNCTION HIMPORT LATENCY MEMORY MODULE OBJECT PUBSUB SCRIPT"
    " SENTINEL SLOWLOG XGROUP XINFO"
)

READ_ONLY: Final = words(
    "GET MGET STRLEN GETRANGE SUBSTR LCS EXISTS TYPE TTL PTTL EXPIRETIME PEXPIRETIME KEYS SCAN RANDOMKEY"
    " DBSIZE DUMP HGET HMGET HGETALL HKEYS HVALS HLEN HEXISTS HSTRLEN HRANDFIELD HSCAN HTTL HPTTL HEXPIRETIME"
    " HPEXPIRETIME LLEN LRANGE LINDEX LPOS SCARD SISMEMBER SMISMEMBER SMEMBERS SRANDMEMBER SSCAN SDIFF SINTER"
    " SINTERCARD SUNION"
    " ZCARD ZCOUNT ZLEXCOUNT ZRANGE ZRANGEBYSCORE ZRANGEBYLEX ZREVRANGE ZREVRANGEBYSCORE ZREVRANGEBYLEX ZRANK"
    " ZREVRANK ZSCORE ZMSCORE ZSCAN ZRANDMEMBER ZDIFF ZINTER ZINTERCARD ZUNION"
    " GEOPOS GEODIST GEOHASH GEOSEARCH GEORADIUS_RO GEORADIUSBYMEMBER_RO BITCOUNT BITPOS GETBIT BITFIELD_RO"
    " PFCOUNT XLEN XRANGE XREVRANGE XPENDING XREAD EVAL_RO EVALSHA_RO FCALL_RO SORT_RO"
    " PING ECHO TIME INFO LASTSAVE ROLE LOLWUT COMMAND",
    ACL="CAT GETUSER LIST USERS WHOAMI",
    CLIENT="GETNAME ID INFO LIST",
    CLUSTER="COUNTKEYSINSLOT GETKEYSINSLOT INFO KEYSLOT MYID NODES SHARDS SLOTS",
    COMMAND="COUNT DOCS GETKEYS INFO LIST",
    CONFIG="GET",
    FUNCTION="DUMP LIST STATS",
    MEMORY="STATS USAGE",
    OBJECT="ENCODING FREQ IDLETIME REFCOUNT",
    PUBSUB="CHANNELS NUMPAT NUMSUB SHARDCHANNELS SHARDNUMSUB",
    SCRIPT="EXISTS",
    SLOWLOG="GET LEN",
    XINFO="CONSUMERS GROUPS STREAM",
)

REPLICA_READS: Final = frozenset(name for name in READ_ONLY if " " not in name) - words(
    "SCAN HSCAN SSCAN ZSCAN KEYS RANDOMKEY DBSIZE PING ECHO TIME INFO LASTSAVE ROLE LOLWUT COMMAND"
)
"""Reads of keys that a replica may execute: not SCANs, whose cursors are those of one server."""

TIMEOUT_LAST: Final = words("BLPOP BRPOP BRPOPLPUSH BLMOVE BZPOPMIN BZPOPMAX")
TIMEOUT_FIRST: Final = words("BLMPOP BZMPOP")
TIMEOUT_MILLISECONDS: Final = {"WAIT": 2, "WAITAOF": 3, "MIGRATE": 5}
