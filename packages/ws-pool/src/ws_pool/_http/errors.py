"""Our exceptions for those of aiohttp."""

from __future__ import annotations

from typing import Any, TypeVar

import aiohttp
from yarl import URL

from ws_core.errors import describe
from ws_core.redaction import mask_url
from ws_pool._http.address_guard import DeniedAddress
from ws_pool.errors import HttpAddressDenied, HttpConnectionError, HttpError, HttpTimeout, UsageError, WsError

HttpErrorT = TypeVar("HttpErrorT", bound=HttpError)


def http_error(
    kind: type[HttpErrorT], method: str, url: object, text: str, **context: Any
) -> HttpErrorT:  # Any: the error's own
    """Build an error about a request; the text goes on behind its method and its URL without secrets."""
    shown = mask_url(str(url))
    return kind(f"{method} {shown}{text}", method=method, url=shown, **context)


def map_exception(error: Exception, method: str, url: str | URL, *, pool: str) -> WsError:
    """Return our error for one that aiohttp raised, to be raised from it."""
    shown = mask_url(str(url))
    where = f"{method} {shown}"
    context = {"method": method, "url": shown, "pool": pool}

    if isinstance(error, TimeoutError):
        connected = not isinstance(error, aiohttp.ConnectionTimeoutError)
        what = "complete answer" if connected else "connection"
        return HttpTimeout(f"{where}: no {what} in time", **context, sent=connected)

    # Where a server redirects to is its fault, not the caller's.
    redirected = isinstance(error, aiohttp.RedirectClientError)

    if isinstance(error, aiohttp.InvalidURL) and not redirected:
        return UsageError(f"{where}: this is not a URL of a web server: {error}", **context)

    if isinstance(error, aiohttp.ClientConnectorError):
        if denied := _denied(error.os_error):
            return HttpAddressDenied(f"{where}: {denied}, and deny_private is on", **context)

        return HttpConnectionError(f"{where}: cannot connect: {error}", **context, sent=False)

    # aiohttp has no class of its own for this one.
    consumed = isinstance(error, aiohttp.ClientPayloadError) and "consumed request body" in str(error)
    lost = isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError | OSError)

    if lost and not consumed:
        reason = describe(error)
        return HttpConnectionError(f"{where}: the connection was lost: {reason}", **context, sent=True)

    if consumed:
        reason = "a redirect wants the body again, which is read once: give bytes, a file or files="
    elif isinstance(error, aiohttp.TooManyRedirects):
        reason = "too many redirects"
    else:
        what = "a redirect to what is not a URL of a web server: " if redirected else ""
        reason = what + describe(error)

    return HttpError(f"{where}: {reason}", **context)


def _denied(error: BaseException) -> DeniedAddress | None:
    """Find a refusal of ours; several addresses of one host fail as a group, or as one text."""
    if isinstance(error, DeniedAddress):
        return error

    if isinstance(error, BaseExceptionGroup):
        return next((found for inner in error.exceptions if (found := _denied(inner))), None)

    return DeniedAddress(str(error)) if "is not a public address" in str(error) else None
