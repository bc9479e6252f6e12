"""Requests over the default HTTP pool as in 1.x; a request that fails raises an error of `ws_pool.http`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from wintersweet._gone import explain as _explain
from wintersweet.asyncs.http.response import DownloadResponse, HTTPResponse, http_response_partial
from ws_pool import http as library

__all__ = (
    "delete",
    "download",
    "get",
    "head",
    "options",
    "patch",
    "post",
    "put",
    "request",
    "request_stream",
)

# Any below: what the library's requests take, see `ws_pool.http.RequestOptions`.


async def request(
    method: str, url: str, handle_response_class: Callable[[Any], Any] = http_response_partial, **kwargs: Any
) -> Any:
    """
    Make a request.

    Args:
        method: GET, POST and so on.
        url: The URL.
        handle_response_class: Called with aiohttp's response; what it returns is awaited.
        **kwargs: Those of `ws_pool.http.RequestOptions`.

    Returns:
        An `HTTPResponse` of any status, or what ``handle_response_class`` made.

    Raises:
        ws_pool.errors.HttpError: There is no response; 1.x logged that and returned None.
    """
    kwargs.setdefault("raise_for_status", False)

    if handle_response_class is http_response_partial:
        return HTTPResponse.of(await library.request(method, url, **kwargs))

    async with library.request_stream(method, url, **kwargs) as stream:
        return await handle_response_class(stream.raw)


async def get(url: str, params: Any = None, **kwargs: Any) -> Any:
    """Make a GET request."""
    return await request("GET", url, params=params, **kwargs)


async def options(url: str, **kwargs: Any) -> Any:
    """Make an OPTIONS request."""
    return await request("OPTIONS", url, **kwargs)


async def head(url: str, **kwargs: Any) -> Any:
    """Make a HEAD request; redirects are not followed."""
    kwargs.setdefault("allow_redirects", False)
    return await request("HEAD", url, **kwargs)


async def post(url: str, data: Any = None, files: Any = None, json: Any = None, **kwargs: Any) -> Any:
    """Make a POST request; ``files`` are pairs ``(field, (name, file))``."""
    return await request("POST", url, **_body(data, files, json), **kwargs)


async def put(url: str, data: Any = None, files: Any = None, json: Any = None, **kwargs: Any) -> Any:
    """Make a PUT request; ``files`` as of `post`."""
    return await request("PUT", url, **_body(data, files, json), **kwargs)


async def patch(url: str, data: Any = None, files: Any = None, json: Any = None, **kwargs: Any) -> Any:
    """Make a PATCH request; ``files`` as of `post`."""
    return await request("PATCH", url, **_body(data, files, json), **kwargs)


async def delete(url: str, **kwargs: Any) -> Any:
    """Make a DELETE request."""
    return await request("DELETE", url, **kwargs)


async def request_stream(
    url: str, file_path: str | os.PathLike[str], method: str = "POST", **kwargs: Any
) -> Any:
    """Send a file as the body, without reading it into memory."""
    # Opening a file on a local disk takes less than handing it to a thread.
    with open(file_path, "rb") as file:  # noqa: ASYNC230, PTH123 - see above
        return await request(method, url, data=file, **kwargs)


async def download(
    url: str, file_path: str | os.PathLike[str], method: str = "GET", **kwargs: Any
) -> DownloadResponse:
    """Save a body as a file, which appears only when it is complete; see `HttpClient.download` of ws_pool."""
    if method.upper() != "GET":
        message = f"download() sends GET, not {method}: use request_stream() of ws_pool.http"
        raise ValueError(message)

    return DownloadResponse(await library.download(url, os.fspath(file_path), **kwargs))


def _body(data: Any, files: Any, json: Any) -> dict[str, Any]:
    """Return the arguments of the library for a body."""
    found = {"data": data, "json": json}

    if files:
        pairs: Iterable[Any] = files.items() if isinstance(files, Mapping) else files
        found["files"] = dict(pairs)
        found["data"] = {key: str(value) for key, value in (data or {}).items()}

    return {key: value for key, value in found.items() if value is not None}


__getattr__: Callable[[str], NoReturn] = _explain(__name__)
