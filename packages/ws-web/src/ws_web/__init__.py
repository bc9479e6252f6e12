"""The application layer on FastAPI: settings, components, envelope, request id, WebSockets, health."""

from ws_web.app import create_app as create_app
from ws_web.conf import Settings as Settings
from ws_web.conf import settings as settings
from ws_web.errors import ErrorCode as ErrorCode
from ws_web.errors import SettingsError as SettingsError
from ws_web.errors import SocketLimitError as SocketLimitError
from ws_web.exception_handlers import http_exception_handler as http_exception_handler
from ws_web.exception_handlers import (
    request_validation_exception_handler as request_validation_exception_handler,
)
from ws_web.middlewares import RequestIDMiddleware as RequestIDMiddleware
from ws_web.middlewares import get_request_id as get_request_id
from ws_web.request import APIRoute as APIRoute
from ws_web.request import APIRouter as APIRouter
from ws_web.request import Request as Request
from ws_web.response import Envelope as Envelope
from ws_web.response import ErrResponse as ErrResponse
from ws_web.response import HTTP400Response as HTTP400Response
from ws_web.response import HTTP404Response as HTTP404Response
from ws_web.response import HTTP405Response as HTTP405Response
from ws_web.response import HTTP500Response as HTTP500Response
from ws_web.response import HTTPExceptionResponse as HTTPExceptionResponse
from ws_web.response import Response as Response
from ws_web.response import ok_raw as ok_raw
from ws_web.ws import MessageHandler as MessageHandler
from ws_web.ws import WsChatConnectionManager as WsChatConnectionManager

__all__ = (
    "APIRoute",
    "APIRouter",
    "Envelope",
    "ErrResponse",
    "ErrorCode",
    "HTTP400Response",
    "HTTP404Response",
    "HTTP405Response",
    "HTTP500Response",
    "HTTPExceptionResponse",
    "MessageHandler",
    "Request",
    "RequestIDMiddleware",
    "Response",
    "Settings",
    "SettingsError",
    "SocketLimitError",
    "WsChatConnectionManager",
    "create_app",
    "get_request_id",
    "http_exception_handler",
    "ok_raw",
    "request_validation_exception_handler",
    "settings",
)
