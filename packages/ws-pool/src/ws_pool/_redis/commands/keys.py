"""Which keys a command has, and which hash slot they belong to. Pure."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import Any, Final

from ws_pool._redis.commands.command import Command, command_entries, stream_options, verb_is_enough
from ws_pool._redis.commands.table import Route, words

SLOTS: Final = 16_384

# Where to find the number of keys, behind which the keys begin (counted in words).
_COUNTED: Final = {
    **dict.fromkeys(words("EVAL EVALSHA EVAL_RO EVALSHA_RO FCALL FCALL_RO BLMPOP BZMPOP"), 2),
    **dict.fromkeys(words("LMPOP ZMPOP ZUNION ZINTER ZDIFF ZINTERCARD SINTERCARD"), 1),
}
_CHANNEL: Final = frozenset({"SPUBLISH", "SSUBSCRIBE", "SUNSUBSCRIBE"})


def hash_slot(key: bytes) -> int:
    """
    Compute a key's slot: CRC16 (XMODEM) of the key or of its hash tag, modulo 16384.

    Example:
        >>> hash_slot(b"foo"), hash_slot(b"{foo}bar") == hash_slot(b"foo")
        (12182, True)
    """
    start = key.find(b"{")

    if start >= 0:
        end = key.find(b"}", start + 1)

        if end > start + 1:
            key = key[start + 1 : end]

    return binascii.crc_hqx(key, 0) % SLOTS


class KeySpecs:
    """Where commands have their keys, from the server's reply to COMMAND."""

    def __init__(self, commands: Sequence[Any], encode: Any) -> None:  # Any: a reply; redis-py's encoder
        self._encode = encode
        self._first: dict[str, tuple[int, int, int]] = {
            name: (int(entry[3]), int(entry[4]), int(entry[5])) for name, entry in command_entries(commands)
        }

    @property
    def simple(self) -> frozenset[str]:
        """Commands of one word that may be shared and whose first argument is their key."""
        return frozenset(
            name
            for name, (first, _, _) in self._first.items()
            if first == 1
            and " " not in name
            and name not in _COUNTED
            and Command((name, "key")).route is Route.SHARED
            and verb_is_enough(name)
        )

    def keys(self, command: Command) -> Sequence[Any]:
        """Return the keys of a command; empty when it has none, or is malformed."""
        name, arguments = command.name, command.arguments
        name_words = len(command.words) - len(arguments)

        if name in _COUNTED:
            return _counted(arguments, _COUNTED[name] - name_words)

        if name in {"XREAD", "XREADGROUP"}:
            return _streams(command.words)

        if name in _CHANNEL:
            return arguments[:1]

        first, last, step = self._first.get(name) or self._first.get(name.split(" ", 1)[0]) or (0, 0, 0)

        if first <= 0:
            return ()

        start = first - name_words
        end = len(arguments) + last + 1 if last < 0 else last - name_words + 1
        return arguments[start : end : max(1, step)]

    def slot(self, command: Command) -> int | None:
        """Return the hash slot of a command's first key, or None when it has no key."""
        keys = self.keys(command)
        return hash_slot(bytes(self._encode(keys[0]))) if keys else None


def _counted(arguments: Sequence[Any], index: int) -> Sequence[Any]:
    try:
        return arguments[index + 1 : index + 1 + int(arguments[index])]
    except (IndexError, ValueError):
        return ()  # malformed: let the server say so


def _streams(args: Sequence[Any]) -> Sequence[Any]:
    keys_and_ids = args[stream_options(args).get("STREAMS", len(args)) + 1 :]
    return keys_and_ids[: len(keys_and_ids) // 2]
