"""The response envelope: every JSON reply has the same five fields.

``{"code": 0, "data": ..., "msg": "Success", "request_id": "...", "extra": null}``. Code 0 means
success; any other code says what failed. Errors have the same shape, so a client needs one parser.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from http import HTTPStatus
from json.encoder import encode_basestring_ascii
from typing import Any, Final, Generic, TypeVar

import fastapi
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse
from starlette.responses import Response as StarletteResponse
from starlette.types import Receive, Scope, Send

from ws_web._json import encode
from ws_web._negotiation import PROBLEM_JSON, get_request_id, wants_problem
from ws_web.errors import ErrorCode

__all__ = (
    "Envelope",
    "ErrResponse",
    "HTTP400Response",
    "HTTP404Response",
    "HTTP405Response",
    "HTTP500Response",
    "HTTPExceptionResponse",
    "Problem",
    "Response",
    "ok_raw",
)

T = TypeVar("T")

BODILESS: Final = frozenset({*range(100, 200), 204, 205, 304})
"""Statuses of replies that have no body, hence no envelope."""

SUCCESS = "Success"
UNKNOWN = "Unknown Error"

# The default of `status_code`, not the same as a 200 that was given; FastAPI's OpenAPI needs a number there.
_BY_CODE: Final = type("_ByCode", (int,), {})(200)


class Envelope(BaseModel, Generic[T]):
    """
    The shape of every JSON reply, for OpenAPI and for clients in Python.

    Example:
        >>> reply = '{"code": 0, "data": [1, 2], "msg": "Success", "request_id": "r1", "extra": null}'
        >>> Envelope[list[int]].model_validate_json(reply).data
        [1, 2]
    """

    code: int | str = Field(default=0, description="0 for success, otherwise what failed.")
    data: T
    msg: str = Field(default=SUCCESS, description="One line for people.")
    request_id: str = Field(
        default_factory=get_request_id, description="The id of this request, as in the header x-request-id."
    )
    # Any: the application decides what it adds
    extra: Any = Field(default=None, description="Whatever the application adds beside the data.")


class Problem(BaseModel):
    """
    One thing in a request that does not fit its route; a reply with status 422 lists them.

    Example:
        >>> Problem(loc=["query", "page"], msg="Field required", type="missing").msg
        'Field required'
    """

    loc: list[int | str] = Field(description="Where it is: the part of the request, then the path in it.")
    msg: str = Field(description="What is wrong, for people.")
    type: str = Field(description="What is wrong, for programs.")
    # Any: what the rule compares with
    ctx: dict[str, Any] | None = Field(default=None, description="The limits that the rule compares with.")
    # Any: what was sent
    input: Any = Field(default=None, description="What was sent; only with DEBUG.")


def envelope(
    data: object, *, code: int | str = 0, msg: str = SUCCESS, extra: object = None
) -> dict[str, object]:
    """Return the envelope as a dictionary, with the id of the current request."""
    return {"code": code, "data": data, "msg": msg, "request_id": get_request_id(), "extra": extra}


def success(data: bytes, extra: bytes = b"null") -> bytes:
    """Return the envelope of a success around ready JSON."""
    request_id = encode_basestring_ascii(get_request_id()).encode()
    return b'{"code":0,"data":%b,"msg":"Success","request_id":%b,"extra":%b}' % (data, request_id, extra)


class Response(JSONResponse):
    """
    A reply in the envelope, for routes that choose code, status or extra themselves.

    Routes that only have data to give need not build one: they return the data.

    Args:
        content: What goes under ``data``.
        code: 0 for success; an int, a str, or an Enum member, such as an `ErrorCode`, whose value is taken.
        status_code: The HTTP status; by default that of an `ErrorCode`, else 200.
        extra: What goes under ``extra``.
        msg: The text for people; by default what `build_msg` returns.
        headers: Further headers.
        media_type: Another content type than ``application/json``.
        background: What to run after the reply was sent.

    Example:
        >>> Response({"id": 7}, extra={"page": 1}).body
        b'{"code":0,"data":{"id":7},"msg":"Success","request_id":"","extra":{"page":1}}'
    """

    def __init__(
        self,
        content: object = None,
        code: int | str | Enum = 0,
        status_code: int | None = _BY_CODE,
        extra: object = None,
        *,
        msg: str | None = None,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
        background: BackgroundTask | None = None,
    ) -> None:
        self.code_given = code
        self.code: int | str = code.value if isinstance(code, Enum) else code
        self.data = content
        self.extra = extra
        self._msg = msg

        if status_code is None or status_code is _BY_CODE:
            status_code = code.status_code if isinstance(code, ErrorCode) else 200

        super().__init__(content, status_code, headers, media_type, background)

    @property
    def ok(self) -> bool:
        """Return whether the code means success."""
        return self.code == 0

    @property
    def msg(self) -> str:
        """The text for people: the one that was given, or what `build_msg` returns in the current request."""
        if self._msg is not None:
            return self._msg

        try:
            return self.build_msg()
        except LookupError:  # of a table of texts that does not know the code
            return UNKNOWN

    @property
    def _code(self) -> int | str:
        """The code under the name that `build_msg` had for it in the first version."""
        return self.code

    def build_msg(self) -> str:
        """
        Return the text for ``msg``. Override it to choose the texts of your own codes, from ``self.code``.

        Returns:
            "Success" for code 0; for an Enum member its ``msg`` attribute, or its name as words;
            otherwise the phrase of an HTTP status of that number, or "Unknown Error".
        """
        if self.code == 0:
            return SUCCESS

        if isinstance(self.code_given, Enum):
            text = getattr(self.code_given, "msg", None)
            return text if isinstance(text, str) else self.code_given.name.replace("_", " ").capitalize()

        return phrase(self.code)

    def render(self, content: Any) -> bytes:  # Any: the signature of the base
        """Return the envelope around the content as JSON."""
        return encode(envelope(content, code=self.code, msg=self.msg, extra=self.extra))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Send the reply; an error as the client of this request wants it.

        An error may have been made before the request: it gets the request's id and language here. A client
        whose ``Accept`` prefers ``application/problem+json`` gets an error of status 400 or above as RFC 9457
        describes it.
        """
        if self.code == 0:
            await super().__call__(scope, receive, send)
            return

        is_problem = self.status_code >= 400 and wants_problem(scope)
        reply = StarletteResponse(
            encode(self._problem(scope)) if is_problem else self.render(self.data),
            self.status_code,
            media_type=PROBLEM_JSON if is_problem else self.media_type,
            background=self.background,
        )
        own = {b"content-length", *((b"content-type",) if is_problem else ())}
        kept = [pair for pair in self.raw_headers if pair[0] not in own]
        names = {name for name, _ in kept}
        reply.raw_headers = kept + [pair for pair in reply.raw_headers if pair[0] not in names]
        reply.headers.add_vary_header("Accept")

        if isinstance(self.code_given, ErrorCode) and self.code_given.texts:
            reply.headers.add_vary_header("Accept-Language")

        await reply(scope, receive, send)

    def _problem(self, scope: Scope) -> dict[str, object]:
        """Return the members of RFC 9457, and those of the envelope that it does not have."""
        title = phrase(self.status_code)
        shown: dict[str, object] = {"type": "about:blank", "title": title, "status": self.status_code}

        if self.msg != title:
            shown["detail"] = self.msg

        shown |= {"instance": scope["path"], "code": self.code, "request_id": get_request_id()}
        more = {"data": self.data, "extra": self.extra}
        return shown | {name: value for name, value in more.items() if value is not None}


class ErrResponse(Response, Exception):
    """
    A reply to be raised: from anywhere below a route, it ends the request with this envelope.

    Takes the arguments of `Response`. The HTTP status is that of an `ErrorCode`, else 200 unless you give
    another one, because the code says what failed; give ``status_code`` where proxies and clients look at
    the status. One that is made once and raised often carries the id of each request.

    Example:
        >>> def take(stock: int) -> int:
        ...     if stock == 0:
        ...         raise ErrResponse(code=4001, msg="sold out", status_code=409)
        ...     return stock - 1
        >>> try:
        ...     take(0)
        ... except ErrResponse as error:
        ...     print(error, error.status_code)
        4001: sold out 409
    """

    def __str__(self) -> str:
        return f"{self.code}: {self.msg}"


class HTTP400Response(Response):
    """Status and code 400: the request cannot be understood."""

    def __init__(self, content: object = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content, 400, 400, msg="Invalid Arguments", headers=headers)


class HTTP404Response(Response):
    """Status and code 404: there is no such thing."""

    def __init__(self, content: object = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content, 404, 404, headers=headers)


class HTTP405Response(Response):
    """Status and code 405: not with this method."""

    def __init__(self, content: object = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content, 405, 405, headers=headers)


class HTTP500Response(Response):
    """Status and code 500: the service failed; the reply shows nothing of the inside."""

    def __init__(
        self, content: object = None, headers: Mapping[str, str] | None = None, *, extra: object = None
    ) -> None:
        super().__init__(content, 500, 500, extra, headers=headers)


class HTTPExceptionResponse(Response):
    """
    The reply for an `HTTPException`: status and code are the same number.

    Args:
        status_code: The HTTP status.
        detail: A text becomes ``msg``; anything else becomes ``data``.
        headers: Further headers, such as ``Retry-After``.
    """

    def __init__(
        self,
        status_code: int = 503,
        detail: object = "Service Unavailable",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.detail = detail
        text, data = (detail, None) if isinstance(detail, str) else (None, detail)
        super().__init__(data, status_code, status_code, msg=text, headers=headers)


def ok_raw(
    data: object, *, extra: object = None, headers: Mapping[str, str] | None = None
) -> fastapi.Response:
    """
    Return a success envelope without validating the data: the hot path.

    The declared type of the route still describes it in OpenAPI, but nothing checks that it fits.

    Args:
        data: Bytes are JSON that is ready, and placed in the envelope as they are. Anything else is
            written to JSON: JSON types, dataclasses, pydantic models, dates, UUIDs and the like.
        extra: What goes under ``extra``.
        headers: Further headers.

    Example:
        >>> ok_raw([{"id": 1}]).body
        b'{"code":0,"data":[{"id":1}],"msg":"Success","request_id":"","extra":null}'
    """
    ready = data if isinstance(data, bytes) else encode(data)
    body = success(ready, b"null" if extra is None else encode(extra))
    return fastapi.Response(body, headers=dict(headers) if headers else None, media_type="application/json")


def phrase(code: int | str) -> str:
    """Return the phrase of an HTTP status, or "Unknown Error" for another code."""
    try:
        return HTTPStatus(int(code)).phrase
    except ValueError:
        return UNKNOWN
