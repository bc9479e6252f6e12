"""A command parsed once, and what a client remembers about each verb. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from redis.client import CaseInsensitiveDict

from ws_pool._redis.commands.table import (
    BLOCKING,
    CONTAINERS,
    MAY_BLOCK,
    READ_ONLY,
    SESSION,
    TIMEOUT_FIRST,
    TIMEOUT_LAST,
    TIMEOUT_MILLISECONDS,
    Route,
)

_OPTION_WIDTHS: Final = {"GROUP": 3, "COUNT": 2, "BLOCK": 2, "CLAIM": 2}  # words of an option with its values


class Command:
    """
    A command, parsed: its words as the server gets them, its name, its route, and whether it only reads.

    Example:
        >>> Command(("client id",)).name, Command((b"get", b"key")).name
        ('CLIENT ID', 'GET')
        >>> Command(("XREAD", "COUNT", 1, "STREAMS", "block", "0")).route
        <Route.SHARED: 'shared'>
        >>> Command(("XREAD", "BLOCK", 0, "STREAMS", "events", "$")).route
        <Route.BLOCKING: 'blocking'>
    """

    __slots__ = ("args", "arguments", "name", "read_only", "route", "words")

    def __init__(self, args: Sequence[Any]) -> None:  # Any: whatever redis-py lets callers write
        self.args: Sequence[Any] = args  # as the caller wrote them: response callbacks are found by args[0]
        words = split(args)
        self.words: Sequence[Any] = words
        name = word_of(words[0])

        if name in CONTAINERS and len(words) > 1:
            name = f"{name} {word_of(words[1])}"
            self.arguments: Sequence[Any] = words[2:]
        else:
            self.arguments = words[1:]

        self.name: str = name
        self.read_only: bool = name in READ_ONLY

        if name in BLOCKING or (name in MAY_BLOCK and "BLOCK" in stream_options(words)):
            self.route: Route = Route.BLOCKING
        else:
            self.route = Route.SESSION if name in SESSION else Route.SHARED

    def __repr__(self) -> str:
        return f"<Command {self.name}>"  # without arguments, which may be secrets

    @property
    def block_seconds(self) -> float | None:
        """
        How long the server may take over a blocking command; None for ever, or when it is malformed.

        Example:
            >>> Command(("BLPOP", "queue", 1.5)).block_seconds
            1.5
            >>> Command(("XREAD", "BLOCK", 250, "STREAMS", "events", "$")).block_seconds
            0.25
        """
        index, scale = self._timeout_word()

        try:
            seconds = float(word_of(self.words[index])) * scale
        except (IndexError, ValueError):
            return None

        return seconds if seconds > 0 else None

    def shortened(self, seconds: float) -> Command:
        """
        Return a blocking command with so many seconds less to block; itself when it blocks for ever.

        Example:
            >>> Command(("BLPOP", "queue", 3)).shortened(1.0).args
            ('BLPOP', 'queue', 2.0)
        """
        limit = self.block_seconds

        if limit is None:
            return self

        index, scale = self._timeout_word()
        left = max(0.001, limit - seconds)  # 0 would mean for ever
        words = list(self.words)
        words[index] = left if scale == 1.0 else max(1, round(left / scale))
        return Command(tuple(words))

    def _timeout_word(self) -> tuple[int, float]:
        """Return which word is the timeout of a blocking command, and how many seconds its unit has."""
        name, words = self.name, self.words

        if name in TIMEOUT_LAST:
            return len(words) - 1, 1.0

        if name in TIMEOUT_FIRST:
            return 1, 1.0

        if name in MAY_BLOCK:
            return stream_options(words).get("BLOCK", len(words)) + 1, 1e-3

        return TIMEOUT_MILLISECONDS.get(name, len(words)), 1e-3


class CommandInfo:
    """What is known about a command by its verb alone, so that the hot path need not parse it."""

    __slots__ = ("callback", "may_await", "pack", "parse")

    def __init__(
        self,
        pack: Callable[[Sequence[Any]], bytes],
        callback: Callable[..., Any] | None,
        *,
        parse: bool,
    ) -> None:
        self.pack = pack
        self.callback = callback
        self.parse = parse  # the verb is not enough, or the command may not share a connection
        # Callbacks of redis-py are plain functions; only those of users are checked for awaitables.
        self.may_await = not (getattr(callback, "__module__", "") or "").startswith(("redis.", "builtins"))


class ObservedCallbacks(CaseInsensitiveDict):
    """Response callbacks that report each change, because every `CommandInfo` remembers its callback."""

    changed: Callable[[], None] = staticmethod(lambda: None)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)  # type: ignore[no-untyped-call]  # redis-py's
        self.changed()

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)  # type: ignore[no-untyped-call]  # redis-py's
        self.changed()

    def update(self, data: Any) -> None:  # type: ignore[override]  # as redis-py narrows it
        super().update(data)  # type: ignore[no-untyped-call]  # redis-py's
        self.changed()


def split(args: Sequence[Any]) -> Sequence[Any]:
    """
    Split a name of several words, as redis-py does before it sends a command ("SELECT 3" holds an argument).

    Example:
        >>> split(("CLIENT ID",)), split(("GET a",)), split(("GET", "a"))
        (('CLIENT', 'ID'), ('GET', 'a'), ('GET', 'a'))
    """
    name = args[0]

    if (isinstance(name, str) and " " in name) or (isinstance(name, bytes) and b" " in name):
        return (*name.split(), *args[1:]) if name.strip() else args

    return args


def verb_is_enough(verb: object) -> bool:
    """Return whether a command's first argument decides its route, whatever follows."""
    first, *rest = word_of(verb).split() or ("",)
    return first not in MAY_BLOCK and (first not in CONTAINERS or bool(rest))


def stream_options(words: Sequence[Any]) -> dict[str, int]:
    """
    Return where each option of XREAD and XREADGROUP stands, STREAMS being the last one.

    Groups, consumers and streams may have names like options, so each option's values are skipped.

    Example:
        >>> stream_options(("XREADGROUP", "GROUP", "streams", "block", "STREAMS", "events", ">"))
        {'GROUP': 1, 'STREAMS': 4}
    """
    found: dict[str, int] = {}
    index = 1

    while index < len(words) and "STREAMS" not in found:
        word = word_of(words[index])
        found[word] = index
        index += _OPTION_WIDTHS.get(word, 1)

    return found


def command_entries(reply: Iterable[Any]) -> Iterator[tuple[str, Any]]:  # Any: entries of COMMAND's reply
    """Yield the name and the entry of each command that COMMAND has named, subcommands included."""
    # Of an entry's ten fields the first is the name, and the last are the subcommands (Redis 7 and newer).
    for entry in reply:
        yield word_of(entry[0]).replace("|", " "), entry
        yield from command_entries(entry[9] if len(entry) > 9 else ())


def word_of(value: object) -> str:
    """Return an argument as a word of a command, in capitals."""
    return value.upper() if isinstance(value, str) else text_of(value).upper()


def text_of(value: object) -> str:
    """Return an argument, or a word of a reply, as text."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "replace")

    return str(value)
