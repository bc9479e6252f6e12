"""The request id: `ws_web.middlewares`."""

from collections.abc import Callable
from typing import NoReturn

from wintersweet._gone import explain as _explain
from ws_web.middlewares import RequestIDMiddleware as RequestIDMiddleware
from ws_web.middlewares import get_request_id as get_request_id

__all__ = (
    "RequestIDMiddleware",
    "get_request_id",
)

__getattr__: Callable[[str], NoReturn] = _explain(__name__)
