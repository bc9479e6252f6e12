"""What a route declares beyond FastAPI: its errors, its deadline, and whether it ends with its client."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, Protocol, TypeVar

import fastapi
from starlette.requests import Request
from starlette.responses import Response as StarletteResponse

from ws_core.errors import UsageError
from ws_web.errors import ErrorCode
from ws_web.response import Envelope, HTTPExceptionResponse, phrase

# Any below: FastAPI's own options and endpoints, passed on.

DEADLINE = "ws_web.deadline"
"""Where the scope holds the deadline of an application's routes that declare none."""

_ERRORS = range(400, 600)  # statuses
_CLIENT_CLOSED_REQUEST = 499  # nginx's status; nobody receives it, logs and metrics show it

Declared = ErrorCode | int
F = TypeVar("F", bound=Callable[..., Any])
Handler = Callable[[Request], Awaitable[StarletteResponse]]


@dataclass(slots=True)
class Limits:
    """
    How long a route may take.

    ``deadline``: seconds until the reply must be ready; None for no limit, ... for the application's.
    """

    deadline: float | EllipsisType | None = ...
    cancel_on_disconnect: bool = False
    is_taken: bool = False


_declaring: ContextVar[Limits | None] = ContextVar("ws_web_limits", default=None)


def declared_here() -> Limits:
    """Return what is declared for the route that is being made."""
    limits = _declaring.get()

    if limits is None:
        return Limits()

    limits.is_taken = True
    return limits


class Declare(Protocol):
    """A method that declares routes, with what FastAPI's takes and more."""

    def __call__(
        self,
        path: str,
        *,
        errors: Sequence[Declared] = (),
        deadline: float | EllipsisType | None = ...,
        cancel_on_disconnect: bool = False,
        **options: Any,
    ) -> Callable[[F], F]:
        """Return a decorator."""
        ...


def _method(name: str) -> Any:
    """Return the method of that name of FastAPI, with the declarations as further options."""

    def declare(
        self: Any,
        path: str,
        *args: Any,
        errors: Sequence[Declared] = (),
        deadline: float | EllipsisType | None = ...,
        cancel_on_disconnect: bool = False,
        **options: Any,
    ) -> Any:
        method = getattr(super(DeclaringRoutes, self), name)
        check_deadline(deadline)
        limits = Limits(deadline, cancel_on_disconnect)

        if errors:
            options["responses"] = {**_documented(errors), **(options.get("responses") or {})}

        if name == "add_api_route":
            with _made_with(limits, path):
                return method(path, *args, **options)

        decorate = method(path, *args, **options)

        def decorate_declaring(endpoint: Any) -> Any:
            with _made_with(limits, path):
                return decorate(endpoint)

        return decorate_declaring

    declare.__name__ = name
    declare.__signature__ = _signature(name)  # type: ignore[attr-defined]  # for editors, and whoever inspects
    declare.__doc__ = f"""
        Declare a route as FastAPI's ``{name}`` does, with its errors and limits.

        Args:
            path: The path.
            errors: The errors that the route may answer with, `ErrorCode` members or HTTP statuses;
                OpenAPI lists them.
            deadline: Seconds in which the reply must be ready, else the handler is cancelled and the client
                gets 504. None for no limit; by default the application's. A stream only has to begin in
                time, and a function that runs in a thread is waited for.
            cancel_on_disconnect: Whether the handler is cancelled when its client has gone.
            **options: FastAPI's own.
        """
    return declare


def _signature(name: str) -> inspect.Signature:
    """Return the signature of FastAPI's method with the declarations at its end."""
    theirs = inspect.signature(getattr(fastapi.APIRouter, name))
    keyword = inspect.Parameter.KEYWORD_ONLY
    more = [
        inspect.Parameter("errors", keyword, default=(), annotation=Sequence[Declared]),
        inspect.Parameter("deadline", keyword, default=..., annotation=float | EllipsisType | None),
        inspect.Parameter("cancel_on_disconnect", keyword, default=False, annotation=bool),
    ]
    return theirs.replace(parameters=[*theirs.parameters.values(), *more])


class DeclaringRoutes:
    """A router or application whose routes declare errors and limits; mixed in before FastAPI's class."""

    get: Declare = _method("get")
    put: Declare = _method("put")
    post: Declare = _method("post")
    delete: Declare = _method("delete")
    options: Declare = _method("options")
    head: Declare = _method("head")
    patch: Declare = _method("patch")
    trace: Declare = _method("trace")
    api_route: Declare = _method("api_route")
    add_api_route: Callable[..., None] = _method("add_api_route")


@contextmanager
def _made_with(limits: Limits, path: str) -> Iterator[None]:
    """Hand limits to the route that is made within this block."""
    if _declaring.get() is not None:
        # `api_route` declares through `add_api_route`, which has none of its own.
        yield
        return

    token = _declaring.set(limits)

    try:
        yield
    finally:
        _declaring.reset(token)

    if not limits.is_taken and (limits.deadline is not ... or limits.cancel_on_disconnect):
        raise UsageError(
            f"{path}: deadline and cancel_on_disconnect need a route of ws_web.APIRoute, which this is not"
        )


def check_deadline(deadline: object) -> None:
    """Refuse what is not a time to wait."""
    if deadline is ... or deadline is None:
        return

    if isinstance(deadline, bool) or not isinstance(deadline, int | float) or not deadline > 0:
        raise UsageError(f"deadline must be a positive number of seconds, or None, not {deadline!r}")


def check_seconds(name: str, value: object, *, may_be_zero: bool = False) -> None:
    """Refuse what is not a length of time."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)

    if not is_number or not (0 < value < math.inf or (may_be_zero and value == 0)):  # type: ignore[operator]  # a number by now
        least = "not negative" if may_be_zero else "positive"
        raise UsageError(f"{name} must be a number of seconds that is {least}, not {value!r}")


def _documented(errors: Sequence[Declared]) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of FastAPI that describe errors, by status."""
    if isinstance(errors, str | int):
        raise UsageError(f"errors is a list of members of an ErrorCode and HTTP statuses, not {errors!r}")

    found: defaultdict[int, list[Declared]] = defaultdict(list)

    for error in errors:
        if isinstance(error, ErrorCode):
            found[error.status_code].append(error)
        elif error in _ERRORS:
            found[error].append(error)
        else:
            raise UsageError(f"errors lists members of an ErrorCode and HTTP statuses, not {error!r}")

    return {status: _response(listed) for status, listed in sorted(found.items())}


def _response(errors: Sequence[Declared]) -> dict[str, Any]:
    texts: dict[int | str, str] = dict(
        (error.value, error.text) if isinstance(error, ErrorCode) else (error, phrase(error))
        for error in errors
    )
    empty = {"data": None, "request_id": "", "extra": None}
    examples = {
        str(code): {"summary": text, "value": {"code": code, "msg": text, **empty}}
        for code, text in texts.items()
    }
    return {
        "description": "; ".join(f"{code}: {text}" for code, text in texts.items()),
        "model": Envelope[Any],
        "content": {"application/json": {"examples": examples}},
    }


def limited(handle: Handler, limits: Limits) -> Handler | None:
    """Return a handler that ends as its route declares, or None when it declares nothing."""
    deadline = limits.deadline

    if limits.cancel_on_disconnect:
        return lambda request: _while_connected(deadline, handle, request)

    return None if deadline is ... or deadline is None else lambda request: within(deadline, handle, request)


async def within(deadline: float, handle: Handler, request: Request) -> StarletteResponse:
    """Handle a request, or answer 504 when the time is over."""
    try:
        async with asyncio.timeout(deadline) as timer:
            return await handle(request)
    except TimeoutError:
        if not timer.expired():
            raise  # the handler's own

        return HTTPExceptionResponse(504, "Gateway Timeout")


async def _while_connected(
    declared: float | EllipsisType | None, handle: Handler, request: Request
) -> StarletteResponse:
    """Watch the connection while the handler works; the body is read first, so that nothing else receives."""
    loop = asyncio.get_running_loop()
    deadline: float | None = request.scope.get(DEADLINE) if declared is ... else declared
    has_gone = False

    async def watch(timer: asyncio.Timeout) -> None:
        nonlocal has_gone

        while (await request.receive())["type"] != "http.disconnect":
            pass

        has_gone = True
        timer.reschedule(loop.time())

    try:
        async with asyncio.timeout(deadline) as timer:
            await request.body()
            watcher = asyncio.create_task(watch(timer), name="watch for the client's end")

            try:
                return await handle(request)
            finally:
                watcher.cancel()
                await asyncio.gather(watcher, return_exceptions=True)
    except TimeoutError:
        if not timer.expired():
            raise

        if has_gone:
            return HTTPExceptionResponse(_CLIENT_CLOSED_REQUEST, "Client Closed Request")

        return HTTPExceptionResponse(504, "Gateway Timeout")
