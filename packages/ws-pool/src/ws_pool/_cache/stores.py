"""Where cached values live: in this process, or on a Redis server that many processes share."""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, Protocol

from cachetools import LRUCache as _Lru

_DROPPED: Final = "dropped"


class Found(NamedTuple):
    """A stored value."""

    value: Any  # whatever was cached
    fresh_until: float  # when it should be computed anew, in seconds since the epoch
    cost: float  # seconds that computing it took
    mark: tuple[str, str]  # what the store needs to replace it; opaque


class Missing(NamedTuple):
    """No value, or one that cannot be read."""

    mark: tuple[str, str]  # what the store needs to add one; opaque
    error: Exception | None = None  # why a value that is there cannot be read


class Codec(Protocol):
    """How values become bytes; the module `json` is one, though it makes text."""

    def dumps(self, value: Any, /) -> str | bytes:  # whatever is cached
        """Encode a value."""
        ...

    def loads(self, data: bytes, /) -> Any:  # whatever was cached
        """Decode a value."""
        ...


class RedisLike(Protocol):
    """The commands that are used of a client; `redis.asyncio.Redis` has them."""

    def mget(self, keys: list[str], /) -> Awaitable[list[bytes | str | None]]: ...
    def get(self, name: str, /) -> Awaitable[bytes | str | None]: ...
    def set(
        self, name: str, value: bytes | str, /, *, px: int | None = None, nx: bool = False
    ) -> Awaitable[object]: ...
    def eval(self, script: str, numkeys: int, /, *keys_and_args: bytes | str | int) -> Awaitable[object]: ...


class _Entries(_Lru[str, tuple[Found, float]]):
    """Entries of a local store, which remembers the newest invalidation that had to make room."""

    forgotten = 0

    def popitem(self) -> tuple[str, tuple[Found, float]]:
        """Drop the least recently used entry."""
        key, entry = super().popitem()

        if entry[0].mark[1] == _DROPPED:
            self.forgotten = max(self.forgotten, int(entry[0].mark[0]))

        return key, entry


class LocalStore:
    """
    Values in this process, at most ``maxsize``, the least recently used dropped first.

    A mark is a token and a version. The version is that of the tag when the computation began. The token
    counts the invalidations of keys: one that is older than the key's last invalidation stores nothing.
    """

    def __init__(self, maxsize: int, clock: Callable[[], float]) -> None:
        self._entries = _Entries(maxsize)
        self._clock = clock
        self._tokens = 0

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, tag: str, key: str) -> Found | Missing:
        """Look a value up, without waiting."""
        entry = self._entries.get(key)
        version = _local_tags.get(tag, "0")

        if entry is not None and entry[1] > self._clock() and entry[0].mark[1] == version:
            return entry[0]

        return Missing((str(self._tokens), version))

    async def get(self, tag: str, key: str) -> Found | Missing:
        """Look a value up."""
        return self.find(tag, key)

    async def put(self, tag: str, key: str, found: Found, keep: float) -> bool:
        """Store a value, unless it was invalidated since its mark was given."""
        token, version = found.mark

        if version != _local_tags.get(tag, "0") or int(token) < self._dropped(key):
            return False

        self._entries[key] = (found._replace(mark=(str(self._tokens), version)), self._clock() + keep)
        return True

    async def drop(self, tag: str, key: str, keep: float) -> None:
        """Invalidate a key."""
        self._tokens += 1
        gone = Found(None, 0.0, 0.0, (str(self._tokens), _DROPPED))
        self._entries[key] = (gone, self._clock() + keep)

    async def drop_tag(self, tag: str) -> None:
        """Invalidate all keys of a tag."""
        _local_tags[tag] = str(int(_local_tags.get(tag, "0")) + 1)

    def _dropped(self, key: str) -> int:
        """Return the token of the last invalidation that may have been of a key."""
        entry = self._entries.get(key)
        own = int(entry[0].mark[0]) if entry is not None and entry[0].mark[1] == _DROPPED else 0
        return max(own, self._entries.forgotten)


_local_tags: dict[str, str] = {}
"""The versions of tags in this process, for all its caches."""

_PUT = """
local now = redis.call('GET', KEYS[1])
if now and string.match(now, '^%S+ (%S+)') ~= ARGV[1] then return 0 end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
return 1
"""


class RedisStore:
    """
    Values on a Redis server.

    A value is one line ``ws1 TOKEN VERSION FRESH_UNTIL COST`` and the encoded value. The version
    is that of its tag: replacing the tag's version invalidates all its values at once, also those
    that are just being computed. A key is invalidated by a token without a value, which keeps
    those who began to compute before from storing what they get. All keys of a tag are in one
    hash slot of a cluster.
    """

    def __init__(self, client: Callable[[], RedisLike], codec: Codec, prefix: str) -> None:
        self._client = client
        # The module `json` would look for the encoding first: it is always UTF-8 here.
        self._loads = _load_json if codec is json else codec.loads
        self._prefix = prefix

    async def get(self, tag: str, key: str) -> Found | Missing:
        """Look a value up: one round trip."""
        names = self._names(tag, key)
        version, raw = await self._client().mget([names[1], names[0]])
        current = _text(version)

        if current is None:
            current = await self._first_version(names[1])

        if raw is None:
            return Missing(("", current))

        head, _, payload = (raw if isinstance(raw, bytes) else raw.encode()).partition(b"\n")
        fields = head.split(b" ")

        if len(fields) != 5 or fields[0] != b"ws1" or fields[2] != current.encode():
            return Missing((fields[1].decode(errors="replace") if len(fields) > 1 else "", current))

        mark = (fields[1].decode(errors="replace"), current)

        # An entry of an older deployment, with another codec, is replaced like one that is not there.
        try:
            return Found(self._loads(payload), float(fields[3]), float(fields[4]), mark)
        except Exception as error:  # noqa: BLE001 - the codec is foreign code
            return Missing(mark, error)

    async def put(self, tag: str, key: str, found: Found, keep: float) -> bool:
        """Store a value, unless it was invalidated or stored since its mark was given."""
        token, version = found.mark
        payload = found.value if isinstance(found.value, bytes) else str(found.value).encode()
        head = f"ws1 {secrets.token_hex(8)} {version} {found.fresh_until:.3f} {found.cost:.4f}\n"
        names = self._names(tag, key)
        keep_ms = max(1, int(keep * 1000))
        return bool(
            await self._client().eval(_PUT, 2, *names, token, version, head.encode() + payload, keep_ms)
        )

    async def drop(self, tag: str, key: str, keep: float) -> None:
        """Invalidate a key, also for calls that compute it at the moment."""
        gone = f"ws1 {secrets.token_hex(8)} - 0 0\n"
        await self._client().set(self._names(tag, key)[0], gone, px=max(1, int(keep * 1000)))

    async def drop_tag(self, tag: str) -> None:
        """Invalidate all keys of a tag."""
        await self._client().set(self._names(tag, "")[1], secrets.token_hex(8))

    async def _first_version(self, name: str) -> str:
        # Of processes that begin a tag at the same time, the first one gives the version for all.
        await self._client().set(name, secrets.token_hex(8), nx=True)
        return _text(await self._client().get(name)) or ""

    def _names(self, tag: str, key: str) -> tuple[str, str]:
        return f"{self._prefix}:{{{tag}}}:k:{key}", f"{self._prefix}:{{{tag}}}:v"


def _text(value: bytes | str | None) -> str | None:
    return value.decode() if isinstance(value, bytes) else value


def _load_json(data: bytes) -> Any:  # whatever was cached
    return json.loads(data.decode("utf-8", "surrogatepass"))
