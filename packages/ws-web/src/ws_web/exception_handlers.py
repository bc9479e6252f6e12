"""Handlers that turn exceptions into the envelope. `create_app` installs them."""

from __future__ import annotations

import traceback

from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError, ValidationException, WebSocketRequestValidationError
from starlette import status
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response as StarletteResponse
from starlette.websockets import WebSocket, WebSocketState

from ws_core.errors import describe
from ws_web._origin import DENIAL
from ws_web.errors import SocketLimitError
from ws_web.response import BODILESS, ErrResponse, HTTP500Response, HTTPExceptionResponse, Response

__all__ = (
    "err_response_handler",
    "http_exception_handler",
    "request_validation_exception_handler",
    "server_error_handler",
    "socket_limit_handler",
    "websocket_validation_exception_handler",
)


async def http_exception_handler(request: Request, exc: HTTPException) -> StarletteResponse:
    """
    Answer an `HTTPException` (404 and 405 of the router among them) in the envelope.

    Args:
        request: The request; part of the signature of a handler.
        exc: Its text detail becomes ``msg``, any other detail ``data``; headers are kept.
    """
    if exc.status_code in BODILESS:
        return StarletteResponse(status_code=exc.status_code, headers=exc.headers)

    return HTTPExceptionResponse(exc.status_code, exc.detail, headers=exc.headers)


async def request_validation_exception_handler(request: Request, exc: RequestValidationError) -> Response:
    """
    Answer a request that does not fit its route with 422; ``data`` lists what does not fit.

    Args:
        request: The request.
        exc: The problems. What was sent is repeated only with DEBUG, because it may be secret.
    """
    return Response(_problems(request, exc), 422, 422, msg="Invalid Arguments")


async def server_error_handler(request: HTTPConnection, exc: Exception) -> Response:
    """
    Answer an exception that nobody handled with 500; only DEBUG shows what it was.

    Args:
        request: The request.
        exc: The exception, which the error boundary has logged.
    """
    if not _is_debug(request):
        return HTTP500Response()

    lines = traceback.format_exception(exc)
    return HTTP500Response(extra={"error": describe(exc, with_type=True), "traceback": "".join(lines)})


async def err_response_handler(request: Request, exc: ErrResponse) -> Response:
    """Answer with the raised `ErrResponse`, which is a reply already."""
    # A constant that is raised often would keep the frames of every request.
    exc.__traceback__ = exc.__context__ = exc.__cause__ = None
    return exc


async def websocket_validation_exception_handler(
    websocket: WebSocket, exc: WebSocketRequestValidationError
) -> Response | None:
    """
    Answer a handshake that does not fit its route with 422, as a request; 1008 where that cannot be sent.

    Args:
        websocket: The WebSocket, which is not accepted yet.
        exc: The problems, see `request_validation_exception_handler`.
    """
    if _can_be_answered(websocket):
        extra = {"close_code": status.WS_1008_POLICY_VIOLATION}
        return Response(_problems(websocket, exc), 422, 422, extra, msg="Invalid Arguments")

    await websocket.close(status.WS_1008_POLICY_VIOLATION, "Invalid Arguments")
    return None


async def socket_limit_handler(websocket: WebSocket, exc: SocketLimitError) -> Response | None:
    """
    Refuse a WebSocket for which there is no room: 503, or 1013 when it was accepted already.

    Args:
        websocket: The WebSocket.
        exc: Which limit was reached.
    """
    if _can_be_answered(websocket):
        return HTTPExceptionResponse(503, "Too many connections", headers={"Retry-After": "10"})

    await websocket.close(status.WS_1013_TRY_AGAIN_LATER, "too many connections")
    return None


def _can_be_answered(websocket: WebSocket) -> bool:
    """Return whether the handshake of a WebSocket can still be answered as a request is."""
    is_new = websocket.application_state is WebSocketState.CONNECTING
    return is_new and DENIAL in websocket.scope.get("extensions", ())


def _is_debug(request: HTTPConnection) -> bool:
    app = request.scope.get("app")
    return bool(getattr(app, "debug", False))


def _problems(connection: HTTPConnection, exc: ValidationException) -> list[dict[str, object]]:
    """Return what may be shown: the limits that were broken, but not the input, which may be secret."""
    names = ("loc", "msg", "type", "ctx", *(("input",) if _is_debug(connection) else ()))
    return [jsonable_encoder({name: item[name] for name in names if name in item}) for item in exc.errors()]
