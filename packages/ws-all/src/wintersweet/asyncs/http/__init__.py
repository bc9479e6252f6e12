"""Requests over the default HTTP pool: `ws_pool.http`."""

from collections.abc import Callable
from typing import NoReturn

from wintersweet._gone import explain as _explain
from ws_pool.http import delete as delete
from ws_pool.http import download as download
from ws_pool.http import get as get
from ws_pool.http import head as head
from ws_pool.http import http_pool_manager as http_pool_manager
from ws_pool.http import options as options
from ws_pool.http import patch as patch
from ws_pool.http import post as post
from ws_pool.http import put as put
from ws_pool.http import request as request
from ws_pool.http import request_stream as request_stream

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
