"""Which slot of a cluster a command belongs to. Pure."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import Any, Final

from ws_pool._redis.commands.table import Route, canonical, needs_arguments, routing_of, split, stream_options

__all__ = ("SLOTS", "KeySpecs", "hash_slot")

SLOTS: Final = 16_384

# Where to find the number of keys, behind which the keys begin (counted in words).
_COUNTED: Final = {
    "EVAL": 2,
    "EVALSHA": 2,
    "EVAL_RO": 2,
    "EVALSHA_RO": 2,
    "FCALL": 2,
    "FCALL_RO": 2,
    "BLMPOP": 2,
    "BZMPOP": 2,
    "LMPOP": 1,
    "ZMPOP": 1,
    "ZUNION": 1,
    "ZINTER": 1,
    "ZDIFF": 1,
    "ZINTERCARD": 1,
    "SINTERCARD": 1,
}
_CHANNEL: Final = frozenset({"SPUBLISH", "SSUBSCRIBE", "SUNSUBSCRIBE"})


def hash_slot(key: bytes) -> int:
    """
    Compute a key's slot: CRC16 (XMODEM) of the key or of its hash tag, modulo 16384.

    Args:
        key: The key as it goes over the wire.

    Returns:
        The slot.

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
    """
    Knows where commands have their keys, from what the server says about its commands.

    Args:
        commands: The reply to COMMAND.
        encode: Turns a key into bytes.
    """

    def __init__(self, commands: Sequence[Any], encode: Any) -> None:  # Any: a reply; redis-py's encoder
        self._encode = encode
        self._first: dict[str, tuple[int, int, int]] = {}

        for entry in commands:
            self._learn(entry)

    @property
    def simple(self) -> frozenset[str]:
        """Commands of one word that may be shared and whose first argument is their key."""
        return frozenset(
            name
            for name, (first, _, _) in self._first.items()
            if first == 1
            and " " not in name
            and name not in _COUNTED
            and routing_of((name, "key")) is Route.SHARED
            and not needs_arguments(name)
        )

    def keys(self, args: Sequence[Any]) -> Sequence[Any]:
        """
        Find the keys of a command.

        Args:
            args: The command, its name being of one argument or of several.

        Returns:
            The keys; empty for a command without any.
        """
        name = canonical(args)
        spoken = name.count(" ") + 1
        args = split(args)
        rest = args[spoken:]  # what follows the name

        if name in _COUNTED:
            return _counted(rest, _COUNTED[name] - spoken)

        if name in {"XREAD", "XREADGROUP"}:
            return _streams(args)

        if name in _CHANNEL:
            return rest[:1]

        first, last, step = self._first.get(name) or self._first.get(name.split(" ", 1)[0]) or (0, 0, 0)

        if first <= 0:
            return ()

        start = first - spoken
        end = len(rest) + last + 1 if last < 0 else last - spoken + 1
        return rest[start : end : max(1, step)]

    def slot(self, args: Sequence[Any]) -> int | None:
        """
        Find the slot of a command.

        Args:
            args: The command.

        Returns:
            The slot of its first key, or None when it has no key.
        """
        keys = self.keys(args)
        return hash_slot(bytes(self._encode(keys[0]))) if keys else None

    def _learn(self, entry: Sequence[Any]) -> None:
        name = _text(entry[0]).upper().replace("|", " ")
        self._first[name] = (int(entry[3]), int(entry[4]), int(entry[5]))

        if len(entry) > 9:
            for inner in entry[9]:
                self._learn(inner)


def _counted(rest: Sequence[Any], index: int) -> Sequence[Any]:
    try:
        return rest[index + 1 : index + 1 + int(rest[index])]
    except (IndexError, ValueError):
        return ()  # malformed: let the server say so


def _streams(args: Sequence[Any]) -> Sequence[Any]:
    behind = args[stream_options(args).get("STREAMS", len(args)) + 1 :]
    return behind[: len(behind) // 2]


def _text(value: Any) -> str:  # Any: bytes or str
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
