"""What a request takes besides its URL, and how aiohttp calls it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, TypeAlias, TypedDict

import aiohttp

from ws_pool._http.bodies import FileBody, Files, Form, is_replayable, pairs
from ws_pool._http.options import FRAMING, basic, client_timeout
from ws_pool.errors import UsageError

QueryValue: TypeAlias = str | int | float | Enum


class RequestOptions(TypedDict, total=False):
    """
    What every request takes besides its URL, as keyword arguments.

    - ``params``: added to the URL's query; a list is sent item by item.
    - ``headers``: added to the pool's headers.
    - ``json``: sent as JSON.
    - ``data``: sent as it is (bytes, text, an open file, an async iterator of bytes), or a mapping
      as a form; a list is sent item by item. A form with a file is sent once, unless it is given
      as ``files``.
    - ``files``: sent as a multipart form, with ``data`` as its plain fields: field names to bytes,
      text, a path, an open binary file, or a tuple (name, file, content type).
    - ``cookies``: sent with this request.
    - ``auth``: user and password for basic authentication, or aiohttp's `BasicAuth`.
    - ``timeout``: seconds for each attempt, in place of the pool's; None for no bound; or aiohttp's
      `ClientTimeout`.
    - ``retries``: in place of the pool's.
    - ``idempotent``: whether the request may be made again; by default its method decides.
    - ``raise_for_status``: in place of the pool's.
    - ``allow_redirects``: whether redirects are followed; True by default.
    """

    params: Mapping[str, QueryValue | Sequence[QueryValue]] | Sequence[tuple[str, QueryValue]] | str | None
    headers: Mapping[str, str] | None
    json: Any  # whatever the encoder takes
    data: Any  # whatever aiohttp takes
    files: Files | None
    cookies: Mapping[str, str] | None
    auth: tuple[str, ...] | aiohttp.BasicAuth | None
    timeout: float | aiohttp.ClientTimeout | None
    retries: int
    idempotent: bool
    raise_for_status: bool
    allow_redirects: bool


_PASSED_ON = frozenset({"headers", "json", "data"})
_OURS = frozenset({"files", "auth"})
_SWITCHES = frozenset({"idempotent", "raise_for_status", "allow_redirects"})


def aiohttp_arguments(
    options: RequestOptions, connect_timeout: float | None
) -> dict[str, Any]:  # aiohttp's own
    """Translate a request's options into arguments of `aiohttp.ClientSession.request`."""
    arguments: dict[str, Any] = {}

    for name, value in options.items():
        if name in _PASSED_ON:
            arguments[name] = value
        elif name == "timeout":
            arguments[name] = client_timeout(options["timeout"], connect_timeout)
        elif name == "params":
            arguments[name] = _params(value)
        elif name == "cookies":
            arguments[name] = None if value is None else dict(_named(value, "cookies"))
        else:
            _check(name, value)

    if "allow_redirects" in options:
        arguments["allow_redirects"] = options["allow_redirects"]

    arguments |= _body(options)

    if (headers := _headers(options, arguments.get("data"))) is not None:
        arguments["headers"] = headers

    return arguments


def _check(name: str, value: object) -> None:
    """Refuse a wrong value of an option that only we use, and one that does not exist."""
    if name in _SWITCHES:
        if not isinstance(value, bool):
            raise UsageError(f"{name} must be True or False, not {value!r:.50}", option=name)
    elif name == "retries":
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise UsageError(f"retries must be a whole number of at least 0, not {value!r:.50}")
    elif name not in _OURS:
        raise UsageError(f"{name!r} is not an option of a request", option=name)


def _params(params: object) -> object:
    """Return a query whose values mean what they say: of a Decimal or UUID only the integer would be sent."""
    if params is None or isinstance(params, str):
        return params

    query: list[tuple[str, Any]] = []

    for name, value in _named(params, "params"):
        if not isinstance(value, str | int | float):
            kind = type(value).__name__
            message = f"params[{name!r}] must be text, a number or a list of them, not {kind}: write str(…)"
            raise UsageError(message, field=str(name))

        query.append((name, value))

    return query


def _named(values: object, what: str) -> list[tuple[str, Any]]:
    """Return names and values of an option, or refuse it."""
    try:
        return list(pairs(values, what))
    except (TypeError, ValueError):
        message = f"{what} must map names to values, or be a list of such pairs, not {type(values).__name__}"
        raise UsageError(message, option=what) from None


def _headers(options: RequestOptions, body: object) -> Mapping[str, str] | None:
    """Return the headers of a request, with those that its other options make."""
    headers = options.get("headers")

    if headers is not None and not isinstance(headers, Mapping):
        raise UsageError(f"headers must map names to values, not {type(headers).__name__}")

    # A length that is not the body's makes the server wait for the rest of it.
    if headers and is_replayable(body) and not FRAMING.isdisjoint(str(name).lower() for name in headers):
        raise UsageError("the body's length is known: leave content-length and transfer-encoding out")

    auth: object = options.get("auth")

    if auth is None:
        return headers

    texts = isinstance(auth, tuple | list) and len(auth) in {2, 3} and all(isinstance(x, str) for x in auth)

    # Behind a colon the password begins (RFC 7617).
    if not isinstance(auth, tuple | list) or not texts or ":" in auth[0]:
        raise UsageError(
            "auth must be a pair of user and password, the user without a colon, or aiohttp's BasicAuth"
        )

    if any(str(name).lower() == "authorization" for name in headers or ()):
        raise UsageError("auth and the header authorization exclude each other: keep one")

    try:
        return {**(headers or {}), "authorization": basic(*auth)}
    except (LookupError, ValueError) as error:
        raise UsageError(f"auth cannot be encoded: {type(error).__name__}") from None


def _body(options: RequestOptions) -> dict[str, object]:
    """Return the argument for a body that can be sent again."""
    data, files = options.get("data"), options.get("files")

    if files:
        if not isinstance(files, Mapping):
            raise UsageError(f"files must map names of fields to files, not {type(files).__name__}")

        if data is not None and not isinstance(data, Mapping):
            raise UsageError("with files, data must be a mapping of plain fields")

        return {"data": Form(data, files)}

    if isinstance(data, Mapping | list | tuple):
        return {"data": _named(data, "data")}

    return {"data": FileBody(data)} if isinstance(data, io.BufferedIOBase | io.RawIOBase) else {}
