"""A prefix for all keys and channels of a pool: commands get it, replies lose it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, Final

from ws_pool._redis.commands.command import Command, word_of
from ws_pool._redis.commands.key_specs import KeyPositions
from ws_pool.errors import UsageError

# Any below: arguments as redis-py lets callers write them, and replies.

_PATTERN: Final = frozenset({"KEYS", "PUBSUB CHANNELS", "PUBSUB SHARDCHANNELS"})
_CHANNELS: Final = frozenset({"PUBSUB NUMSUB", "PUBSUB SHARDNUMSUB"})
_CHANNEL: Final = frozenset({"PUBLISH", "SPUBLISH", "CLUSTER KEYSLOT"})
_SORT: Final = frozenset({"SORT", "SORT_RO"})
_KEY_SPACE: Final = "__keyspace@"
_KEY_EVENT: Final = "__keyevent@"
_GLOB: Final = re.compile(r"([*?\[\]\\])")


class KeyPrefix:
    """
    A prefix of keys and channels.

    Example:
        >>> prefix = KeyPrefix("shop:", KeyPositions([]), lambda value: str(value).encode())
        >>> prefix.apply(("PUBLISH", "sales", "tea")), prefix.apply(("KEYS", "a*"))
        (('PUBLISH', 'shop:sales', 'tea'), ('KEYS', 'shop:a*'))
        >>> prefix.strip(b"shop:tea"), prefix.strip(["no key"])
        (b'tea', ['no key'])
    """

    def __init__(
        self, prefix: str, positions: KeyPositions, encode: Callable[[Any], bytes | memoryview]
    ) -> None:
        self._text = prefix
        self._bytes = bytes(encode(prefix))
        self._pattern = _GLOB.sub(r"\\\1", prefix)
        self._positions = positions
        self._encode = encode

    def add(self, key: Any) -> Any:
        """Return a key or channel with the prefix."""
        return self._text + key if isinstance(key, str) else self._bytes + bytes(self._encode(key))

    def add_to_pattern(self, pattern: Any) -> Any:
        """Return a glob-style pattern that matches below the prefix only."""
        if isinstance(pattern, str):
            return self._pattern + pattern

        return bytes(self._encode(self._pattern)) + bytes(self._encode(pattern))

    def strip(self, key: Any) -> Any:
        """Return a key or channel of a reply without the prefix."""
        if isinstance(key, str):
            return key.removeprefix(self._text)

        return key.removeprefix(self._bytes) if isinstance(key, bytes) else key

    def apply(self, args: Sequence[Any]) -> Sequence[Any]:
        """Return a command with the prefix before its keys, patterns and channels."""
        command = Command(args)
        words = list(command.words)
        first = len(words) - len(command.arguments)
        name = command.name

        if name == "RANDOMKEY":
            raise UsageError("RANDOMKEY knows no prefix: it returns keys of others too; use scan_iter()")

        if name in _PATTERN:
            words[first:] = [self.add_to_pattern(pattern) for pattern in command.arguments or ("*",)]
        elif name in _CHANNELS:
            words[first:] = map(self.add, command.arguments)
        elif name in _CHANNEL:
            words[first : first + 1] = map(self.add, command.arguments[:1])
        elif name == "SCAN":
            self._match(words)
        else:
            for position in self._positions.of(command):
                words[position] = self.add(words[position])

            if name in _SORT:
                self._sort(words)

        if len(words) == len(args):
            return tuple(words)

        # A name of several words stays one argument: response callbacks are found by it.
        whole = len(command.words) - len(args) + 1
        return (args[0], *words[whole:]) if whole == first else tuple(words)

    def subscription(self, args: Sequence[Any]) -> Sequence[Any]:
        """Return the arguments of SUBSCRIBE and the like, or PING, with the prefix."""
        word = word_of(args[0])

        if word == "PING":
            return args

        add = self.add_to_pattern if word.startswith("P") else self.add
        return (args[0], *(self._notification(name, add) or add(name) for name in args[1:]))

    def strip_message(self, response: Any) -> Any:
        """Return what a subscriber has received without the prefix."""
        if not isinstance(response, list) or response[0] in {b"pong", "pong"}:
            return response

        *names, data = response[1:]

        if _starts(names[-1], _KEY_EVENT):
            data = self.strip(data)

        return [response[0], *map(self._strip_channel, names), data]

    def _notification(self, name: Any, add: Callable[[Any], Any]) -> Any:
        """Return a channel of keyspace notifications, which has the key at its end; None for others."""
        if _starts(name, _KEY_EVENT):
            return name

        if not _starts(name, _KEY_SPACE):
            return None

        whole = bytes(self._encode(name))
        head, colons, key = whole.partition(b"__:")
        return head + colons + bytes(self._encode(add(key)))

    def _strip_channel(self, name: Any) -> Any:
        if not _starts(name, _KEY_SPACE):
            return self.strip(self._unescaped(name))

        head, colons, key = name.partition("__:" if isinstance(name, str) else b"__:")
        return head + colons + self.strip(self._unescaped(key))

    def _unescaped(self, name: Any) -> Any:
        """Return a pattern without the escapes of the prefix: what was subscribed to comes back with them."""
        text, escaped = self._text, self._pattern

        if isinstance(name, bytes):
            raw = bytes(self._encode(escaped))
            return self._bytes + name[len(raw) :] if escaped != text and name.startswith(raw) else name

        if isinstance(name, str) and escaped != text and name.startswith(escaped):
            return text + name[len(escaped) :]

        return name

    @staticmethod
    def plain_callbacks(callbacks: MutableMapping[Any, Any]) -> dict[Any, Any]:
        """Return response callbacks as they were before `callbacks` has changed them."""
        plain = {
            name: callback.callback if isinstance(callback, _Stripped) else callback
            for name, callback in callbacks.items()
        }
        return {name: callback for name, callback in plain.items() if callback is not None}

    def callbacks(self, callbacks: MutableMapping[Any, Any]) -> dict[Any, Any]:
        """Return response callbacks which also take the prefix off the keys of replies."""
        # Called again with its own result when the server agrees to another protocol version.
        return {**callbacks} | {
            name: _Stripped(callbacks.get(name), part, self.strip)
            for name, part in _REPLIES.items()
            if not isinstance(callbacks.get(name), _Stripped)
        }

    def _match(self, words: list[Any]) -> None:
        """Limit a SCAN to the prefix, since it would return the keys of others too."""
        # SCAN cursor, then pairs of an option and its value.
        for index in range(2, len(words) - 1, 2):
            if word_of(words[index]) == "MATCH":
                words[index + 1] = self.add_to_pattern(words[index + 1])
                return

        words[2:2] = ("MATCH", f"{self._pattern}*")

    def _sort(self, words: list[Any]) -> None:
        """Prefix the patterns and the destination of a SORT: no key specification names them."""
        index = 2

        while index < len(words) - 1:
            option, value = word_of(words[index]), words[index + 1]
            # No keys: BY without an asterisk means "do not sort", and GET # the element itself.
            fixed = {"BY": b"*" not in bytes(self._encode(value)), "GET": value in {"#", b"#"}}

            if option == "STORE" or not fixed.get(option, True):
                words[index + 1] = self.add(value)

            index += 3 if option == "LIMIT" else 2 if option in {"BY", "GET", "STORE"} else 1


class _Stripped:
    """A response callback that takes the prefix off the keys of a reply."""

    def __init__(
        self,
        callback: Callable[..., Any] | None,
        part: Callable[[Callable[[Any], Any], Any], Any],
        strip: Callable[[Any], Any],
    ) -> None:
        self.callback = callback
        self._part = part
        self._strip = strip

    def __call__(self, reply: Any, **options: Any) -> Any:
        """Return the parsed reply."""
        parsed = reply if self.callback is None else self.callback(reply, **options)
        return None if parsed is None else self._part(self._strip, parsed)


def _all(strip: Callable[[Any], Any], reply: Any) -> Any:
    return [strip(key) for key in reply]


def _second(strip: Callable[[Any], Any], reply: Any) -> Any:
    return (reply[0], [strip(key) for key in reply[1]])


def _first(strip: Callable[[Any], Any], reply: Any) -> Any:
    return type(reply)((strip(reply[0]), *reply[1:])) if reply else reply


def _each(strip: Callable[[Any], Any], reply: Any) -> Any:
    if isinstance(reply, dict):
        return {strip(key): value for key, value in reply.items()}

    return [
        type(item)((strip(item[0]), *item[1:])) if isinstance(item, list | tuple) else strip(item)
        for item in reply
    ]


_REPLIES: Final[dict[str, Callable[[Callable[[Any], Any], Any], Any]]] = {
    "KEYS": _all,
    "PUBSUB CHANNELS": _all,
    "PUBSUB SHARDCHANNELS": _all,
    "SCAN": _second,
    **dict.fromkeys(("BLPOP", "BRPOP", "BZPOPMIN", "BZPOPMAX", "LMPOP", "BLMPOP", "ZMPOP", "BZMPOP"), _first),
    **dict.fromkeys(("XREAD", "XREADGROUP", "PUBSUB NUMSUB", "PUBSUB SHARDNUMSUB"), _each),
}


def _starts(name: Any, start: str) -> bool:
    return name.startswith(start if isinstance(name, str) else start.encode()) if name else False
