"""The response of a request: `ws_pool.http.HttpResponse`."""

from collections.abc import Callable
from typing import NoReturn

from wintersweet._gone import explain as _explain
from ws_pool.http import HttpResponse as HTTPResponse

__all__ = ("HTTPResponse",)

__getattr__: Callable[[str], NoReturn] = _explain(__name__)
