"""One method per HTTP method, over a single `request`."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol, TypeAlias, Unpack

from yarl import URL

from ws_pool._http.request import RequestOptions
from ws_pool._http.response import HttpResponse

Answer: TypeAlias = Coroutine[Any, Any, HttpResponse]
"""What a method returns: to be awaited. It is not a coroutine function itself, which saves a frame."""


class Verb(Protocol):
    """A function that makes a request with one HTTP method."""

    def __call__(self, url: str | URL, /, **options: Unpack[RequestOptions]) -> Answer:
        """Make the request."""
        ...


class HttpVerbs:
    """The methods of HTTP, for a class with a method `request`."""

    __slots__ = ()

    def request(self, method: str, url: str | URL, **options: Unpack[RequestOptions]) -> Answer:
        """Make a request and read the whole answer."""
        raise NotImplementedError

    def get(self, url: str | URL, **options: Unpack[RequestOptions]) -> Answer:
        """Make a GET request; see `request`."""
        return self.request("GET", url, **options)

    def head(self, url: str | URL, **options: Unpack[RequestOptions]) -> Answer:
        """Make a HEAD request; see `request`."""
        return self.request("HEAD", url, **options)

    def options(self, url: str | URL, **options: Unpack[RequestOptions]) -> Answer:
        """Make an OPTIONS request; see `request`."""
        return self.request("OPTIONS", url, **options)

    def post(self, url: str | URL, **options: Unpack[RequestOptions]) -> Answer:
        """Make a POST request; see `request`."""
        return self.request("POST", url, **options)

    def put(self, url: str | URL, **options: Unpack[RequestOptions]) -> Answer:
        """Make a PUT request; see `request`."""
        return self.request("PUT", url, **options)

    def patch(self, url: str | URL, **options: Unpack[RequestOptions]) -> Answer:
        """Make a PATCH request; see `request`."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str | URL, **options: Unpack[RequestOptions]) -> Answer:
        """Make a DELETE request; see `request`."""
        return self.request("DELETE", url, **options)
