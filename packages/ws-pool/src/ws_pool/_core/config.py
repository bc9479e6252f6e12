"""Options: each is declared once, and checked before any side effect.

An option is a field of a frozen dataclass, made by `option`: its name, type, default, check, other
names and meaning stand in that one place. Parsing, errors and the tables of the guides follow from it::

    @dataclass(frozen=True, slots=True)
    class CacheOptions:
        size: int = option(100, integer(1), "entries kept", aliases=("maxsize",))

    parse(CacheOptions, {"maxsize": "50"}, where="CACHE.default")  # CacheOptions(size=50)

A check takes the value and the option's full name (``DATABASES.default.port``), and returns the value
to use. Values from environment variables are strings, so numbers and switches are read from strings.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from string import Formatter
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from ws_core.redaction import is_secret_name, mask_url
from ws_pool.errors import ConfigError

Check = Callable[[object, str], object]
OptionsT = TypeVar("OptionsT")

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Option:
    """The declaration of one option; ``shown`` is its default in the guides."""

    name: str
    type: str
    default: object
    check: Check
    meaning: str
    aliases: tuple[str, ...]
    shown: str


def option(
    default: object,
    check: Check,
    meaning: str,
    *,
    aliases: tuple[str, ...] = (),
    shown: str | None = None,
    secret: bool = False,
) -> Any:  # as dataclasses.field: what it returns stands where the default would
    """Declare an option; ``shown`` is its default in the guides, a ``secret`` is not in the repr."""
    shown = _show_default(default) if shown is None else shown
    metadata = {"check": check, "meaning": meaning, "aliases": aliases, "shown": shown}

    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)

    return field(default=default, metadata=metadata, repr=not secret)


@cache
def options(declaration: type) -> Mapping[str, Option]:
    """Return the options that a dataclass declares, by name; fields made otherwise are not options."""
    return {
        entry.name: Option(
            name=entry.name,
            type=str(entry.type),
            default=entry.default_factory() if entry.default_factory is not MISSING else entry.default,
            **entry.metadata,
        )
        for entry in fields(declaration)
        if entry.metadata
    }


def parse(declaration: type[OptionsT], section: Mapping[str, object], where: str) -> OptionsT:
    """Check a settings section and return the declared options, with defaults for those that are absent."""
    return declaration(**parse_given(declaration, section, where))


def parse_given(declaration: type, section: Mapping[str, object], where: str) -> dict[str, Any]:
    """
    Check a settings section and return only the options that it has, under their real names.

    An unknown option, a wrong value or an option that is given twice is a ConfigError that names it
    as the user wrote it, after ``where``, such as ``DATABASES.default``.
    """
    declared = options(declaration)
    names = {other: entry.name for entry in declared.values() for other in (entry.name, *entry.aliases)}
    result: dict[str, Any] = {}
    entries: object = section  # settings come from users: the annotation is a wish

    if not isinstance(entries, Mapping):
        raise _wrong(where, section, "a mapping of options")

    for given, value in entries.items():
        name = names.get(given)

        if name is None:
            close = difflib.get_close_matches(str(given), names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "known are " + ", ".join(sorted(names))
            raise config_error(f"{where}.{given}", f"is not a known option: {hint}")

        if name in result:
            message = f"says the same as another option given ({name}): keep one of them"
            raise config_error(f"{where}.{given}", message)

        result[name] = declared[name].check(value, f"{where}.{given}")

    return result


def check_sizes(
    declaration: type, section: Mapping[str, object], where: str, *, minimum: int, maximum: int
) -> None:
    """Refuse a minimum above the maximum; the message has the names that the user has written."""
    if minimum > maximum:
        least, most = (
            next((name for name in (key, *options(declaration)[key].aliases) if name in section), key)
            for key in ("min_size", "max_size")
        )
        message = f"is {minimum}, above {where}.{most}, which is {maximum}: lower it"
        raise config_error(f"{where}.{least}", message)


def refuse(where: str, rules: Mapping[str, object]) -> None:
    """
    Raise for the first rule that applies, of options that exclude or need each other.

    A rule is a message and whether it applies. Names in braces become full names; the first is to blame.

    Example:
        >>> refuse("CACHE.default", {"{seeds} needs {cluster}": True})
        Traceback (most recent call last):
        ...
        ws_core.errors.ConfigError: CACHE.default.seeds needs CACHE.default.cluster
    """
    for message, applies in rules.items():
        if applies:
            names = {name: f"{where}.{name}" for _, name, *_ in Formatter().parse(message) if name}
            raise ConfigError(message.format_map(names), setting=next(iter(names.values())))


def config_error(where: str, text: str) -> ConfigError:
    """Return the error of one option; the text goes on behind its full name."""
    return ConfigError(f"{where}{'' if text[0] == ':' else ' '}{text}", setting=where)


def url_parts(url: str, where: str) -> SplitResult:
    """
    Split a URL; without ``//`` behind the colon it has no scheme.

    The error of one that cannot be split shows neither its password nor its query.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        shown = re.sub(r"//.*@", "//***@", url.partition("?")[0], flags=re.DOTALL)
        message = f": {shown!r} is not a URL; special characters in a password are written as %5B for ["
        raise config_error(where, message) from None

    return parts if url[len(parts.scheme) :].startswith("://") else parts._replace(scheme="")


def url_port(url: str, where: str) -> int | None:
    """Return the port of a URL, or None when it has none."""
    try:
        return urlsplit(url).port
    except ValueError:
        message = f": the port in {mask_url(url)!r} must be a number from 1 to 65535"
        raise config_error(where, message) from None


def text(value: object, where: str) -> str:
    """Accept a string."""
    if isinstance(value, str):
        return value

    raise _wrong(where, value, "a string")


def pool_name(value: object, where: str) -> str:
    """Accept the name of a pool, which stands in errors, logs and statistics."""
    if isinstance(value, str) and value:
        return value

    raise _wrong(f"{where}.name", value, "a string that is not empty")


def text_or_callable(value: object, where: str) -> object:
    """Accept a string, or a callable that returns one each time it is needed."""
    if isinstance(value, str) or callable(value):
        return value

    raise _wrong(where, value, "a string or a callable that returns one")


def boolean(value: object, where: str) -> bool:
    """Accept a switch: true, false, or one of the usual words for them."""
    if isinstance(value, bool):
        return value

    word = str(value).strip().lower()

    if word in _TRUE:
        return True

    if word in _FALSE:
        return False

    raise _wrong(where, value, "true or false")


def integer(minimum: int | None = None, maximum: int | None = None) -> Check:
    """Return a check for whole numbers."""

    def check(value: object, where: str) -> int:
        # With a bound, since Python refuses to read numbers of thousands of digits, by another error.
        if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,40}\s*", value):
            value = int(value)

        if isinstance(value, int) and not isinstance(value, bool) and _is_within(value, minimum, maximum):
            return value

        raise _wrong(where, value, _range("a whole number", minimum, maximum))

    return check


def number(minimum: float | None = None, maximum: float | None = None) -> Check:
    """Return a check for finite numbers, such as durations in seconds."""

    def check(value: object, where: str) -> float:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            with suppress(ValueError, OverflowError):
                result = float(value)

                if math.isfinite(result) and _is_within(result, minimum, maximum):
                    return result

        raise _wrong(where, value, _range("a number", minimum, maximum))

    return check


def choice(*allowed: str, any_case: bool = False) -> Check:
    """Return a check for one of some words; ``any_case``: the words are in capitals, values in any case."""

    def check(value: object, where: str) -> str:
        word = value.upper() if any_case and isinstance(value, str) else value

        if isinstance(word, str) and word in allowed:
            return word

        raise _wrong(where, value, "one of " + ", ".join(repr(word) for word in allowed))

    return check


def function(value: object, where: str) -> object:
    """Accept what can be called."""
    if callable(value):
        return value

    raise _wrong(where, value, "a function")


def observer(value: object, where: str) -> object:
    """Accept a function that is called at the end of an operation; nobody would await a coroutine."""
    if callable(value) and not inspect.iscoroutinefunction(value):
        return value

    raise config_error(where, "must be a plain function of the operation, its seconds and its error")


def sequence(value: object, where: str) -> list[object]:
    """Accept a list or tuple."""
    if isinstance(value, list | tuple):
        return list(value)

    raise _wrong(where, value, "a list")


def anything(value: object, where: str) -> object:
    """Accept every value."""
    return value


def optional(check: Check) -> Check:
    """Return a check that accepts None too."""
    return lambda value, where: None if value is None else check(value, where)


def _wrong(where: str, value: object, wanted: str) -> ConfigError:
    return config_error(where, f"must be {wanted}, not {_show(where, value)}")


def _is_within(value: float, minimum: float | None, maximum: float | None) -> bool:
    return (minimum is None or value >= minimum) and (maximum is None or value <= maximum)


def _range(kind: str, minimum: float | None, maximum: float | None) -> str:
    if minimum is not None and maximum is not None:
        return f"{kind} from {minimum} to {maximum}"

    if minimum is not None:
        return f"{kind} of at least {minimum}"

    return kind if maximum is None else f"{kind} of at most {maximum}"


def _show(where: str, value: object) -> str:
    """Return a value as text for an error; of a value that may be secret only the type."""
    if is_secret_name(where.rpartition(".")[2]):
        return f"a value of type {type(value).__name__}"

    if isinstance(value, str):
        return repr(mask_url(value)) if len(value) < 200 else "a long string"

    if isinstance(value, int | float | bool) or value is None:
        return repr(value)

    return f"a value of type {type(value).__name__}"


def _show_default(value: object) -> str:
    if value is None or value in ({}, (), ""):
        return "–"

    if isinstance(value, bool):
        return str(value).lower()

    return f"{value:,g}" if isinstance(value, int | float) else str(value)
