"""Requests over the default HTTP pool: `ws_pool.http`, with the arguments of 1.x."""

from collections.abc import Callable
from typing import NoReturn

from wintersweet._gone import explain as _explain
from wintersweet.asyncs.http.api import delete as delete
from wintersweet.asyncs.http.api import download as download
from wintersweet.asyncs.http.api import get as get
from wintersweet.asyncs.http.api import head as head
from wintersweet.asyncs.http.api import options as options
from wintersweet.asyncs.http.api import patch as patch
from wintersweet.asyncs.http.api import post as post
from wintersweet.asyncs.http.api import put as put
from wintersweet.asyncs.http.api import request as request
from wintersweet.asyncs.http.api import request_stream as request_stream
from ws_pool.http import http_pool_manager as http_pool_manager

__all__ = (
    "delete",
    "download",
    "get",
    "head",
    "http_pool_manager",
    "options",
    "patch",
    "post",
    "put",
    "request",
    "request_stream",
)

__getattr__: Callable[[str], NoReturn] = _explain(__name__)
