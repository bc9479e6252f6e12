"""How a route gets its envelope: decided once, when the route is declared.

The decision (`plan`) is pure. What it returns, an endpoint and a response model, is handed to
FastAPI, which then does everything else as for any route: dependencies, injected headers and
status, validation, OpenAPI.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from fastapi.datastructures import DefaultPlaceholder
from starlette.responses import JSONResponse
from starlette.responses import Response as StarletteResponse

from ws_web.response import Envelope, Response, envelope

__all__ = ("plan",)

Endpoint = Callable[..., Any]  # Any: endpoints take and return what they like

# Replies with these statuses have no body, hence no envelope.
_BODILESS = frozenset({*range(100, 200), 204, 205, 304})


def plan(
    endpoint: Endpoint,
    *,
    response_model: Any,  # Any: FastAPI takes types, special forms and its own placeholder
    response_class: type[StarletteResponse] | DefaultPlaceholder,
    status_code: int | None,
) -> tuple[Endpoint, Any]:
    """
    Decide how FastAPI shall see a route.

    Args:
        endpoint: The function as declared.
        response_model: The model as declared, or FastAPI's placeholder.
        response_class: The response class as declared, or FastAPI's placeholder.
        status_code: The status as declared, or None.

    Returns:
        The endpoint, wrapped when its results need an envelope, and the response model.
        Streams, files, redirects, other response classes and statuses without a body are
        returned as they came.
    """
    if status_code in _BODILESS or _is_generator(endpoint) or not _is_json(response_class):
        return endpoint, response_model

    declared = response_model

    if isinstance(declared, DefaultPlaceholder):
        declared = _declared_result(endpoint)

    if _is_response(declared) and not issubclass(declared, Response):
        return endpoint, response_model  # a stream, a file, a redirect: FastAPI sends it as it is

    if declared is None and not isinstance(response_model, DefaultPlaceholder):
        data: Any = Any  # response_model=None: no validation, as in FastAPI
    else:
        data = _data_type(declared)

    return _wrap(endpoint), Envelope[data]


def _wrap(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint of the same kind whose plain results are put into the envelope."""
    if _is_async(endpoint):

        @functools.wraps(endpoint)
        async def enveloped(*args: Any, **kwargs: Any) -> object:  # Any: passed through
            result = await endpoint(*args, **kwargs)
            return result if isinstance(result, StarletteResponse) else envelope(result)

        return enveloped

    @functools.wraps(endpoint)
    def enveloped_sync(*args: Any, **kwargs: Any) -> object:  # Any: passed through
        result = endpoint(*args, **kwargs)
        return result if isinstance(result, StarletteResponse) else envelope(result)

    return enveloped_sync


def _declared_result(endpoint: Endpoint) -> Any:
    """Return the return annotation; Any when there is none or it cannot be resolved here."""
    function = inspect.unwrap(endpoint)

    while isinstance(function, functools.partial):
        function = function.func

    if not inspect.isroutine(function):
        function = type(function).__call__

    try:
        return get_type_hints(function, include_extras=True).get("return", Any)
    except (NameError, TypeError):
        return Any


def _data_type(declared: Any) -> Any:
    """Return the type of the data: the declared one without the responses it may also return."""
    if _is_response(declared):
        return Any

    if get_origin(declared) in (Union, types.UnionType):
        members = [member for member in get_args(declared) if not _is_response(member)]
        return Union[tuple(members)] if members else Any  # noqa: UP007 - built at run time

    return declared


def _is_response(declared: Any) -> bool:
    if get_origin(declared) is Annotated:
        declared = get_args(declared)[0]

    return isinstance(declared, type) and issubclass(declared, StarletteResponse)


def _is_json(response_class: type[StarletteResponse] | DefaultPlaceholder) -> bool:
    chosen = response_class.value if isinstance(response_class, DefaultPlaceholder) else response_class
    return issubclass(chosen, JSONResponse)


def _is_async(endpoint: Endpoint) -> bool:
    return _is_kind(endpoint, inspect.iscoroutinefunction)


def _is_generator(endpoint: Endpoint) -> bool:
    return _is_kind(endpoint, inspect.isgeneratorfunction) or _is_kind(endpoint, inspect.isasyncgenfunction)


def _is_kind(endpoint: Endpoint, test: Callable[[object], bool]) -> bool:
    """Apply a test of `inspect` to a function, a partial or an object with ``__call__``."""
    while isinstance(endpoint, functools.partial):
        endpoint = endpoint.func

    return test(endpoint) or test(getattr(endpoint, "__call__", None))  # noqa: B004 - the function is wanted
