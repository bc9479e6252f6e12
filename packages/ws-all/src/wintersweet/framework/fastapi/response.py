"""The envelope: `ws_web.response`."""

from ws_web.response import ErrResponse as ErrResponse
from ws_web.response import HTTP400Response as HTTP400Response
from ws_web.response import HTTP404Response as HTTP404Response
from ws_web.response import HTTP405Response as HTTP405Response
from ws_web.response import HTTP500Response as HTTP500Response
from ws_web.response import HTTPExceptionResponse as HTTPExceptionResponse
from ws_web.response import Response as Response

__all__ = (
    "ErrResponse",
    "HTTP400Response",
    "HTTP404Response",
    "HTTP405Response",
    "HTTP500Response",
    "HTTPExceptionResponse",
    "Response",
)
