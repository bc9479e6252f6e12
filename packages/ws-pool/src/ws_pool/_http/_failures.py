"""aiohttp's exceptions as ours."""

from __future__ import annotations

import aiohttp

from ws_pool._config import mask_url
from ws_pool.errors import HttpConnectionError, HttpError, HttpTimeout, UsageError, WsError

__all__ = ("translate",)


def translate(error: Exception, method: str, url: str, *, pool: str) -> WsError:
    """
    Say in our words why a request failed.

    Args:
        error: What aiohttp raised.
        method: The request's method.
        url: The request's URL.
        pool: The pool's name.

    Returns:
        The error to raise from the one given.
    """
    shown = mask_url(url)
    where = f"{method} {shown}"
    context = {"method": method, "url": shown, "pool": pool}

    if isinstance(error, TimeoutError):
        connected = not isinstance(error, aiohttp.ConnectionTimeoutError)
        what = "complete answer" if connected else "connection"
        return HttpTimeout(f"{where}: no {what} in time", **context, sent=connected)

    if isinstance(error, aiohttp.InvalidURL):
        return UsageError(f"{where}: this is not a URL that can be asked: {error}", **context)

    if isinstance(error, aiohttp.TooManyRedirects):
        return HttpError(f"{where}: too many redirects", **context)

    if isinstance(error, aiohttp.ClientConnectorError):
        return HttpConnectionError(f"{where}: cannot connect: {error}", **context, sent=False)

    if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError | OSError):
        reason = str(error) or type(error).__name__
        return HttpConnectionError(f"{where}: the connection was lost: {reason}", **context, sent=True)

    return HttpError(f"{where}: {error or type(error).__name__}", **context)
