"""Where a Redis client comes from, for libraries that do not know each other.

What needs Redis takes a client, a pool, or a manager of pools, by their shapes. The client is looked up for
each use: a module may name a pool that is started later, closed, and started again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from ws_core.errors import ConfigError
from ws_core.redaction import mask_text

__all__ = ("client_getter", "unread_in_redis_url")


def client_getter(source: object, *commands: str) -> Callable[[], Any]:  # Any: redis-py's clients are untyped
    """
    Return a function that returns the client of a source.

    Args:
        source: A client; a pool with a client as ``.redis``; a manager with ``get_pool()``, which stands for
            its default pool; or a function that returns a client.
        commands: Methods that a client must have.

    Returns:
        The function. It raises what the source raises, such as `ws_core.NotReadyError` of a pool that is not
        started.

    Raises:
        ConfigError: The source is none of these.

    Example:
        >>> class Client:
        ...     def get(self, key):
        ...         return key.upper()
        >>> class Pool:
        ...     redis = Client()
        >>> client_getter(Pool(), "get")().get("lamp")
        'LAMP'
    """
    known = cast("Any", source)

    if hasattr(source, "get_pool"):
        return lambda: known.get_pool().redis

    # Not asked for its client yet: a pool that is not started has none.
    if inspect.getattr_static(source, "redis", None) is not None:
        return lambda: known.redis

    if all(hasattr(source, command) for command in commands or ("execute_command",)):
        return lambda: known

    if callable(source) and not isinstance(source, type):
        return known  # type: ignore[no-any-return]  # a function, whatever it returns

    wrong = f"redis={mask_text(repr(source))} is wrong"
    message = f"{wrong}: give a Redis client, a pool, a manager of pools, or a function that returns a client"
    raise ConfigError(message, option="redis")


def unread_in_redis_url(url: str) -> str | None:
    """
    Return what redis-py would leave out of a URL, or read as something else, such as the rest of a password.

    Args:
        url: A URL with a scheme.

    Returns:
        The reason for which it should be refused; None when there is nothing of the kind.

    Raises:
        ValueError: It is not a URL.

    Example:
        >>> unread_in_redis_url("redis://:12#word@h/0")
        'it must not have #, which is written %23 in a password'
        >>> unread_in_redis_url("redis://:12%23word@h/0") is None
        True
    """
    parts = urlsplit(url)
    names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    names += [name for name, value in (("username", parts.username), ("password", parts.password)) if value]

    if parts.scheme != "unix" and parts.path.strip("/"):
        names.append("db")

    if "#" in url:
        return "it must not have #, which is written %23 in a password"

    if "," in (parts.hostname or ""):
        return "it names one host"

    if parts.scheme == "unix" and parts.hostname:
        return "it is written with three slashes, unix:///path/of/the.sock"

    return next((f"it has {name} twice" for name in names if names.count(name) > 1), None)
