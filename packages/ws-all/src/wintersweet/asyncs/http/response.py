"""The response of a request: `ws_pool.http.HttpResponse`."""

from wintersweet._gone import explain as _explain
from ws_pool.http import HttpResponse as HTTPResponse

__all__ = ("HTTPResponse",)

__getattr__ = _explain(__name__)
