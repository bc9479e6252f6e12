"""Where each command has its keys, all of them, by the key specifications of the server's COMMAND. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ws_pool._redis.commands.command import Command, command_entries, text_of, word_of

# Any below: replies, of either protocol and of text or bytes, and arguments of commands.


class _Spec(NamedTuple):
    """One key specification: where keys begin, then how many they are."""

    start: int  # of the word where they begin, or behind which their keyword is searched
    keyword: str  # empty: they begin at the index
    last: int  # of a range: of the last key, from the first one, or negative from the end
    limit: int  # of a range: the part of the rest that is keys
    number_at: int | None  # not a range: where the number of keys is, from the beginning
    first: int  # where the first key is, from there
    step: int


class KeyPositions:
    """
    The positions of keys in commands, from the server's reply to COMMAND (Redis 7 and newer).

    A command that is not known has none.
    """

    def __init__(self, commands: Sequence[Any]) -> None:
        self._specs = {  # the ninth field of an entry has them
            name: [found for spec in entry[8:9] for given in spec if (found := _spec(_mapping(given)))]
            for name, entry in command_entries(commands)
        }

    def of(self, command: Command) -> list[int]:
        """Return which words of a command are keys."""
        words = command.words
        found = {place for spec in self._specs.get(command.name, ()) for place in _places(spec, words)}

        if command.name == "MIGRATE" and len(words) > 3 and not words[3]:
            found.discard(3)  # the keys are named behind KEYS

        return sorted(found)


def _spec(given: Mapping[str, Any]) -> _Spec | None:
    """Read a specification; None for those that name no place, as of SORT's patterns."""
    search, find = _mapping(given["begin_search"]), _mapping(given["find_keys"])
    begin, rule = _mapping(search["spec"]), _mapping(find["spec"])

    if "unknown" in (text_of(search["type"]), text_of(find["type"])):
        return None

    keyword = word_of(begin["keyword"]) if "keyword" in begin else ""
    index = int(begin["startfrom"] if keyword else begin["index"])
    step = max(1, int(rule["keystep"]))

    if "keynumidx" in rule:
        return _Spec(index, keyword, 0, 0, int(rule["keynumidx"]), int(rule["firstkey"]), step)

    return _Spec(index, keyword, int(rule["lastkey"]), int(rule["limit"]), None, 0, step)


def _places(spec: _Spec, words: Sequence[Any]) -> range:
    """Return which words are the keys of one specification."""
    size, begin = len(words), spec.start

    if spec.keyword:
        found = range(begin, size) if begin > 0 else range(size + begin, 0, -1)
        begin = next((place + 1 for place in found if word_of(words[place]) == spec.keyword), size)

    if spec.number_at is not None:
        first = begin + spec.first
        end = first + _integer(words, begin + spec.number_at) * spec.step
    elif spec.last >= 0:
        first, end = begin, begin + spec.last + 1
    elif spec.limit > 1:  # the first part of the rest: XREAD's streams, before as many ids
        first, end = begin, begin + (size - begin) // spec.limit
    else:
        first, end = begin, size + spec.last + 1

    return range(first, min(end, size), spec.step)


def _integer(words: Sequence[Any], index: int) -> int:
    try:
        return int(words[index])
    except (IndexError, ValueError):
        return 0  # malformed: let the server say so


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return a map of either protocol with text as its keys."""
    items = value.items() if isinstance(value, dict) else zip(value[::2], value[1::2], strict=False)
    return {text_of(key): inner for key, inner in items}
