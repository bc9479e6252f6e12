"""How a route gets its envelope: FastAPI serialises the data, and the envelope is put around the bytes.

The endpoint, its dependencies and the declared model stay as FastAPI sees them, so whatever FastAPI
does with them (``response_model_exclude``, aliases, validation, decorators, threads) is done first and by
FastAPI itself. Two things are exchanged while it builds the handler of a route: the field that writes the
data, and the response class that renders it.
"""

from __future__ import annotations

import functools
import inspect
import json
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Union, get_args, get_origin

from fastapi.datastructures import Default, DefaultPlaceholder
from fastapi.dependencies.utils import get_flat_params, get_typed_return_annotation
from fastapi.encoders import jsonable_encoder
from fastapi.utils import create_model_field
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError
from starlette.responses import JSONResponse
from starlette.responses import Response as StarletteResponse

from ws_core.errors import UsageError
from ws_web._json import dump, plain_rows
from ws_web.response import BODILESS, Envelope, Problem, Response, success

Endpoint = Callable[..., Any]  # Any: endpoints take and return what they like
# Any below: FastAPI's routes and fields, whose types are private, and values of any type.


def data_model(endpoint: Endpoint) -> Any:
    """Return the declared type of the data where FastAPI could not read it, else FastAPI's placeholder."""
    try:
        declared = get_typed_return_annotation(endpoint)
    except NameError:
        return Default(None)

    # `-> Item | RedirectResponse` describes the data and, beside it, replies that are sent as they are.
    if get_origin(declared) in (Union, types.UnionType):
        members = get_args(declared)
        data = [member for member in members if not _is_response(member)]

        if len(data) < len(members):
            return Union[tuple(data)] if data else None  # noqa: UP007 - built at run time

    return Default(None)


@contextmanager
def enveloped(route: Any) -> Iterator[None]:
    """Let FastAPI build the handler of a route within this block, so that its data comes in the envelope."""
    if not _has_envelope(route):
        yield
        return

    field, response_class = route.response_field, route.response_class

    if isinstance(field, _Documented):  # an add-on has the handler of a finished route built anew
        route.response_field = field = field.data_field

    # FastAPI sends the bytes of the field as they are unless a class was chosen; a chosen one renders them.
    # One of ours puts the envelope around the data itself, with its own texts.
    if isinstance(response_class, DefaultPlaceholder):
        route.response_field = _DataField(field)
    elif not issubclass(response_class, Response):
        route.response_field = _DataField(field)
        route.response_class = _enveloping(response_class)

    try:
        yield
    finally:
        route.response_class = response_class
        # What OpenAPI reads, while `response_model` stays the declared type of the data.
        route.response_field = _documented(route, field)

        if _can_be_invalid(route) and not {422, "422", "4XX", "default"} & set(route.responses):
            route.responses = {**route.responses, 422: _INVALID}

        if route.responses.get(422) is _INVALID:
            route.response_fields = {**route.response_fields, 422: _INVALID_FIELD}


def release_early(dependant: Any) -> None:
    """Have the clients of pools released when the endpoint returns, not when the reply has been sent."""
    for dependency in dependant.dependencies:
        if getattr(dependency.call, "__ws_web_function_scope__", False):
            dependency.scope = dependency.scope or "function"
        elif not _is_generator(dependency.call) or dependency.scope == "function":
            # A generator that lives as long as the reply keeps what it depends on.
            release_early(dependency)


class _DataField:
    """FastAPI's field of the data, whose JSON is written with the envelope around."""

    __slots__ = ("_adapter", "_deep", "_field")

    def __init__(self, field: Any) -> None:
        self._field = field
        # All that FastAPI's field does for a value that fits, without three functions on the way.
        self._adapter = getattr(field, "_type_adapter", None)
        # Where any value may stand, any value may be a row.
        self._deep = field is None or _takes_anything(field.field_info.annotation, set())

    def validate(self, value: Any, *args: Any, **options: Any) -> tuple[Any, list[Any]]:
        """Validate as FastAPI does; rows are objects, unless the declared type wants tuples."""
        if type(value) is types.CoroutineType:
            raise _not_awaited(value)

        if self._field is None:
            return plain_rows(value), []

        # Where any value fits, a row would fit as the tuple that it is.
        first = plain_rows(value) if self._deep else value

        if self._adapter is not None:
            try:
                return self._adapter.validator.validate_python(first, from_attributes=True), []
            except ValidationError:
                pass  # FastAPI words the errors

        result = self._field.validate(first, *args, **options)

        if result[1]:
            other = value if first is not value else plain_rows(value)

            if other is not first:
                again = self._field.validate(other, *args, **options)
                return again if not again[1] else result  # type: ignore[no-any-return]  # FastAPI's own

        return result  # type: ignore[no-any-return]  # FastAPI's own

    def serialize(self, value: Any, **options: Any) -> Any:
        """Return plain values, as FastAPI does."""
        return jsonable_encoder(value) if self._field is None else self._field.serialize(value, **options)

    def serialize_json(self, value: Any, **options: Any) -> bytes:
        """Return JSON with the envelope around."""
        if self._field is None:
            data = dump(jsonable_encoder(value))
        else:
            try:
                data = (
                    self._field.serialize_json(value, **options)
                    if self._adapter is None
                    else self._adapter.serializer.to_json(value, **options)
                )
            except PydanticSerializationError:  # half of a surrogate pair: it can be written as an escape
                data = dump(self._field.serialize(value, **options))

        # An endpoint that declares no type, or any, may have built the envelope by itself. The look costs a
        # microsecond, so where the type is known it is left out.
        return data if self._deep and isinstance(value, Envelope) else success(data)


def _not_awaited(coroutine: Any) -> UsageError:
    """Return the error of an endpoint that returned a call without having awaited it."""
    name = coroutine.__qualname__
    coroutine.close()  # or Python warns of it as well
    remedy = "write `await`, in a route that is `async def`"
    return UsageError(f"the route returned {name}(…) without awaiting it: {remedy}")


def _enveloping(cls: Any) -> Callable[..., StarletteResponse]:
    """Return what FastAPI calls in place of a response class: its replies, with the envelope around."""
    # Starlette's and FastAPI's own write JSON; whatever has a `render` of its own may write anything.
    is_known = cls.render.__module__ in ("starlette.responses", "fastapi.responses")

    def respond(content: Any, **options: Any) -> StarletteResponse:
        try:
            response: StarletteResponse = cls(content, **options)
        except ValueError:  # NaN or half a surrogate pair, which a client may have sent
            return StarletteResponse(success(dump(content)), media_type=cls.media_type, **options)

        if not is_known:
            constants: list[str] = []  # NaN and the infinities

            try:
                json.loads(bytes(response.body), parse_constant=constants.append)
            except ValueError:
                return response  # it is not JSON, so nothing can be put around it

            if constants:
                return StarletteResponse(success(dump(content)), media_type=cls.media_type, **options)

        response.body = success(bytes(response.body))
        response.headers["content-length"] = str(len(response.body))
        return response

    return respond


class _Documented:
    """The field of ``Envelope[T]`` for OpenAPI, built when it is read: most processes never need it."""

    def __init__(self, data: Any, name: str, data_field: Any = None) -> None:
        self._data = data
        self._name = name
        self.data_field = data_field

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)

        return getattr(self._built, attribute)

    @functools.cached_property
    def _built(self) -> Any:
        model = self._data if _is_envelope(self._data) else Envelope.__class_getitem__(self._data)
        return create_model_field(name=self._name, type_=model, mode="serialization")


_INVALID: dict[str, Any] = {"description": "Validation Error"}
_INVALID_FIELD = _Documented(list[Problem], "Response_422")


def _has_envelope(route: Any) -> bool:
    """Return whether the plain results of a route are sent in the envelope."""
    response_class = route.response_class
    chosen = response_class.value if isinstance(response_class, DefaultPlaceholder) else response_class
    return (
        route.status_code not in BODILESS
        and not _is_generator(route.endpoint)
        and issubclass(chosen, JSONResponse)
        and not _is_envelope(route.response_model)
    )


def _documented(route: Any, field: Any) -> _Documented | None:
    """Return the field for OpenAPI; None when the route promises a reply that is sent as it is."""
    if field is None:
        declared = get_typed_return_annotation(route.endpoint)

        if _is_response(declared) and not issubclass(declared, Response):
            return None

    return _Documented(Any if field is None else route.response_model, f"Response_{route.unique_id}", field)


def _can_be_invalid(route: Any) -> bool:
    """Return whether a request can fail to fit, which is when FastAPI documents status 422."""
    return route.body_field is not None or bool(get_flat_params(route.dependant))


def _is_envelope(declared: Any) -> bool:
    return isinstance(declared, type) and issubclass(declared, Envelope)


def _is_response(declared: Any) -> bool:
    if get_origin(declared) is Annotated:
        declared = get_args(declared)[0]

    return isinstance(declared, type) and issubclass(declared, StarletteResponse)


def _takes_anything(declared: Any, seen: set[Any]) -> bool:
    """Return whether some part of a type takes any value, a row too."""
    if declared in (Any, object, list, tuple, dict, set):
        return True

    if isinstance(declared, type) and issubclass(declared, BaseModel):
        if declared in seen:
            return False

        seen.add(declared)
        return any(_takes_anything(field.annotation, seen) for field in declared.model_fields.values())

    return any(_takes_anything(part, seen) for part in get_args(declared))


def _is_generator(endpoint: Endpoint) -> bool:
    """Return whether a function, a partial or an object with ``__call__`` yields its result in parts."""
    while isinstance(endpoint, functools.partial):
        endpoint = endpoint.func

    function = inspect.unwrap(endpoint)
    tests = (inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    return any(test(one) for test in tests for one in (function, getattr(function, "__call__", None)))  # noqa: B004 - the function is wanted
