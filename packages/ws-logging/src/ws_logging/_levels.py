"""Which levels are logged: one for all modules, and others for some of them and what is below them.

A level of some module may be lower than that of all others. Then loguru would do all of its work
for the messages that only that module logs, whoever sends them: it compares a message's level with
the lowest one that any handler wants, before it does anything else. `LevelByModule` is a number that
answers this very comparison by the module of the caller.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from loguru import logger

from ws_logging.errors import LoggingConfigError

# Any below: frames and options of loguru.

_core: Any = logger._core  # type: ignore[attr-defined]
_LOG: Final = type(logger)._log.__code__  # type: ignore[attr-defined]
_FORWARDER: Final = "ws_logging.intercept"  # logs for modules that are not those of its frames


class Levels:
    """The lowest level of all modules, and those of some of them with all that is below them."""

    __slots__ = ("_known", "common", "given", "lowest", "modules", "raised")

    def __init__(
        self, common: int, given: Mapping[str, int], raised: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        self.common: int = common
        self.given: dict[str, int] = dict(given)
        self.raised: Mapping[str, int] = raised  # by default; they never lower the level of a module
        self.modules: dict[str, int] = {
            name: level for name, level in raised.items() if level > common
        } | self.given
        self.lowest: int = min([common, *self.modules.values()])
        self._known: dict[str, int] = {}

    def of(self, name: str | None) -> int:
        """Return the lowest level of a module."""
        if not self.modules or name is None:
            return self.common

        level = self._known.get(name)

        if level is None:
            found = of_name(self.modules, name)
            level = self._known[name] = self.common if found is None else found

        return level

    def threshold(self) -> int:
        """Return what loguru is to compare levels with."""
        return LevelByModule(self) if self.lowest < self.common else self.lowest


def of_name(table: Mapping[str, Any], name: str) -> Any:
    """Return the entry of a dotted name or of its nearest parent, or None."""
    while name:
        if name in table:
            return table[name]

        name = name.rpartition(".")[0]

    return None


class LevelByModule(int):
    """
    The lowest of some levels, which compares itself as the level of the module that calls loguru.

    loguru evaluates ``level < min_level``. This is a subclass of int, so Python tries its ``__gt__`` first.
    The caller's frame is found as loguru finds it. All of this is private to loguru: its versions are
    bounded, a test watches over it, and when in doubt the message takes the long way, where the exact
    filter decides.
    """

    _levels: Levels

    def __new__(cls, levels: Levels) -> LevelByModule:  # noqa: PYI034 - never subclassed
        """Make a number that is the lowest of the levels."""
        number = super().__new__(cls, levels.lowest)
        number._levels = levels
        return number

    def __gt__(self, number: int) -> bool:
        """Return whether messages of a level are not logged."""
        levels = self._levels

        if number >= levels.common or number < levels.lowest:
            return number < levels.lowest

        if len(_core.handlers) > 1 and any(
            handler.levelno is not self and int(handler.levelno) <= number
            for handler in _core.handlers.values()
        ):
            return False  # somebody else wants it, whoever sends it

        frame: Any = sys._getframe(1)

        if frame.f_code is not _LOG:
            return False

        method = frame.f_back  # Logger.debug(), Logger.log(), ...

        try:
            depth = method.f_locals["_Logger__self"]._options[1]
            caller = sys._getframe(3 + depth)
            name = caller.f_globals["__name__"]
        except (AttributeError, IndexError, KeyError, ValueError):
            return False

        return name != _FORWARDER and number < levels.of(name)


def level_number(level: str | int, what: str = "level") -> int:
    """Return the number of a level."""
    if isinstance(level, int) and not isinstance(level, bool) and level >= 0:
        return level

    if isinstance(level, str):
        try:
            return logger.level(level.upper()).no
        except ValueError:
            pass

    names = "trace, debug, info, success, warning, error, critical"
    raise LoggingConfigError(f"{what}: there is no log level {level!r}; there are {names}")


def level_name(number: int) -> str:
    """Return the name of a level, or its number when it has none."""
    names = {5: "TRACE", 10: "DEBUG", 20: "INFO", 25: "SUCCESS", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}
    return names.get(number, str(number))
