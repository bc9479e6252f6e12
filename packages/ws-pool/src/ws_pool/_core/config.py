"""Checking of settings: every wrong one is a `ConfigError` that names it, before any side effect.

A pool declares its options as a mapping from name to a check. A check takes the value and the
option's full name (``DATABASES.default.port``) and returns the value to use. Values that come
from environment variables are strings, so numbers and switches are read from strings too.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping
from urllib.parse import SplitResult, urlsplit

from ws_pool.errors import ConfigError

__all__ = (
    "Check",
    "anything",
    "boolean",
    "choice",
    "function",
    "integer",
    "mask_url",
    "number",
    "optional",
    "options_of",
    "sequence",
    "text",
    "text_or_callable",
    "url_parts",
)

Check = Callable[[object, str], object]

SECRETS = re.compile(r"pass|secret|token|credential|api_?key", re.IGNORECASE)
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def options_of(
    section: Mapping[str, object],
    checks: Mapping[str, Check],
    *,
    where: str,
    aliases: Mapping[str, str] | None = None,
) -> dict[str, object]:
    """
    Check a settings section.

    Args:
        section: The section as the user wrote it.
        checks: Every known option with its check.
        where: The section's full name, as ``DATABASES.default``.
        aliases: Other names for options, such as ``maxsize`` for ``max_size``.

    Returns:
        The given options under their real names, with checked values; nothing for those absent.

    Raises:
        ConfigError: An unknown option, a wrong value, or one option given twice.
    """
    names = aliases or {}
    result: dict[str, object] = {}

    entries: object = section  # settings come from users: the annotation is a wish

    if not isinstance(entries, Mapping):
        message = f"{where} must be a mapping of options, not {_show(where, section)}"
        raise ConfigError(message, setting=where)

    for given, value in entries.items():
        name = names.get(given, given)

        if name not in checks:
            raise ConfigError(_unknown(where, given, [*checks, *names]), setting=f"{where}.{given}")

        if name in result:
            message = f"{where}.{given} says the same as another option given ({name}): keep one of them"
            raise ConfigError(message, setting=f"{where}.{given}")

        result[name] = checks[name](value, f"{where}.{given}")

    return result


def mask_url(url: str) -> str:
    """
    Hide the password and secret query values of a URL.

    Args:
        url: Any URL.

    Returns:
        The URL fit for logs and errors.

    Example:
        >>> mask_url("mysql://bob:hunter2@db/shop?charset=utf8mb4")
        'mysql://bob:***@db/shop?charset=utf8mb4'
    """
    masked = re.sub(r"(//[^/?#]*?):.*@(?=[^@]*$|[^@/?#]*[/?#])", r"\1:***@", url, count=1)
    return re.sub(
        r"([?&][^=&#]*(?:pass|secret|token|key)[^=&#]*=)[^&#]*", r"\1***", masked, flags=re.IGNORECASE
    )


def url_parts(url: str, where: str) -> SplitResult:
    """
    Split a URL.

    Args:
        url: The URL.
        where: The option's full name.

    Returns:
        Its parts.

    Raises:
        ConfigError: It cannot be split; the message shows neither password nor query.
    """
    try:
        return urlsplit(url)
    except ValueError:
        shown = re.sub(r"//.*@", "//***@", url.partition("?")[0], flags=re.DOTALL)
        message = f"{where}: {shown!r} is no URL; special characters in a password are written as %5B for ["
        raise ConfigError(message, setting=where) from None


def url_port(url: str, where: str) -> int | None:
    """
    Read the port of a URL.

    Args:
        url: The URL.
        where: The option's full name.

    Returns:
        The port, or None when the URL names none.

    Raises:
        ConfigError: The port is no number between 1 and 65535.
    """
    try:
        return urlsplit(url).port
    except ValueError:
        message = f"{where}: the port in {mask_url(url)!r} must be a number from 1 to 65535"
        raise ConfigError(message, setting=where) from None


def text(value: object, where: str) -> str:
    """Accept a string."""
    if isinstance(value, str):
        return value

    raise _wrong(where, value, "a string")


def text_or_callable(value: object, where: str) -> object:
    """Accept a string, or a callable that gives one each time it is needed."""
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
    """
    Build a check for whole numbers.

    Args:
        minimum: The least allowed value.
        maximum: The greatest allowed value.

    Returns:
        The check.
    """

    def check(value: object, where: str) -> int:
        if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+\s*", value):
            value = int(value)

        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong(where, value, _range("a whole number", minimum, maximum))

        if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
            raise _wrong(where, value, _range("a whole number", minimum, maximum))

        return value

    return check


def number(minimum: float | None = None, maximum: float | None = None) -> Check:
    """
    Build a check for finite numbers, such as durations in seconds.

    Args:
        minimum: The least allowed value.
        maximum: The greatest allowed value.

    Returns:
        The check.
    """

    def check(value: object, where: str) -> float:
        result = math.nan

        if isinstance(value, str | int | float) and not isinstance(value, bool):
            try:
                result = float(value)
            except ValueError:
                result = math.nan

        low = minimum is not None and result < minimum
        high = maximum is not None and result > maximum

        if not math.isfinite(result) or low or high:
            raise _wrong(where, value, _range("a number", minimum, maximum))

        return result

    return check


def choice(*allowed: str, any_case: bool = False) -> Check:
    """
    Build a check for one of some words.

    Args:
        *allowed: The words.
        any_case: Take them in capitals or not; all of ``allowed`` are in capitals then.

    Returns:
        The check.
    """

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


def sequence(value: object, where: str) -> list[object]:
    """Accept a list or tuple."""
    if isinstance(value, list | tuple):
        return list(value)

    raise _wrong(where, value, "a list")


def anything(value: object, where: str) -> object:  # noqa: ARG001 - the signature of a check
    """Accept every value."""
    return value


def optional(check: Check) -> Check:
    """
    Let None through a check.

    Args:
        check: The check for all other values.

    Returns:
        The check that accepts None too.
    """
    return lambda value, where: None if value is None else check(value, where)


def check_sizes(
    minimum: int, maximum: int, *, where: str, names: tuple[str, str] = ("minsize", "maxsize")
) -> None:
    """
    Check that a pool's bounds fit together.

    Args:
        minimum: Connections kept open.
        maximum: Most connections at once.
        where: The section's full name.
        names: What the two options are called there.

    Raises:
        ConfigError: The minimum is above the maximum.
    """
    if minimum > maximum:
        message = f"{where}.{names[0]} is {minimum}, above {where}.{names[1]}, which is {maximum}: lower it"
        raise ConfigError(message, setting=f"{where}.{names[0]}")


def _unknown(where: str, given: object, known: Collection[str]) -> str:
    close = difflib.get_close_matches(str(given), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "known are " + ", ".join(sorted(known))
    return f"{where}.{given} is not a known option: {hint}"


def _wrong(where: str, value: object, wanted: str) -> ConfigError:
    return ConfigError(f"{where} must be {wanted}, not {_show(where, value)}", setting=where)


def _range(kind: str, minimum: float | None, maximum: float | None) -> str:
    if minimum is not None and maximum is not None:
        return f"{kind} from {minimum} to {maximum}"

    if minimum is not None:
        return f"{kind} of at least {minimum}"

    return kind if maximum is None else f"{kind} of at most {maximum}"


def _show(where: str, value: object) -> str:
    """Show a value in an error; what may be secret is shown as its type only."""
    if SECRETS.search(where.rpartition(".")[2]):
        return f"a value of type {type(value).__name__}"

    if isinstance(value, str):
        return repr(mask_url(value)) if len(value) < 200 else "a long string"

    if isinstance(value, int | float | bool) or value is None:
        return repr(value)

    return f"a value of type {type(value).__name__}"
