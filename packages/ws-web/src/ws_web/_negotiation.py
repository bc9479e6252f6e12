"""The current request: its id, and which language of messages and form of errors its client prefers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

from starlette.types import Message, Scope

from ws_core.context import carry

ID_KEY = "ws_web.request_id"  # of the scope
PROBLEM_JSON = "application/problem+json"

current_scope: ContextVar[Mapping[str, Any]] = ContextVar("ws_web_scope", default={})  # noqa: B039 - never written to
"""The ASGI scope of the request or WebSocket that is being served; Any: as in ASGI."""

_MOST_RANGES = 50  # of a header; a longer one is not a browser's


def get_request_id() -> str:
    """
    Return the id of the request that is being answered, or ``""`` outside of one.

    Example:
        >>> get_request_id()
        ''
    """
    request_id: str = current_scope.get().get(ID_KEY, "")
    return request_id


def with_scope(key: str) -> Callable[[str], AbstractContextManager[None]]:
    """Return a function whose contexts have a value in the current scope, under this key."""

    @contextmanager
    def restore(value: str) -> Iterator[None]:
        token = current_scope.set({**current_scope.get(), key: value})

        try:
            yield
        finally:
            current_scope.reset(token)

    return restore


carry("x-request-id", get_request_id, with_scope(ID_KEY))  # a job that a request enqueues has its id too


def preferred_language(languages: Mapping[str, object], own: str) -> str | None:
    """Return the language that the current client likes best (RFC 4647, lookup), or None for our own."""
    header = _header(current_scope.get(), b"accept-language")

    if not header or not languages:
        return None

    known = {language.lower(): language for language in languages}

    for wanted, quality in sorted(_ranges(header), key=lambda pair: -pair[1]):
        tag = wanted

        while tag and quality > 0:
            if tag in known:
                return known[tag]

            if tag in (own.lower(), "*"):
                return None

            tag = tag.rpartition("-")[0]

    return None


def wants_problem(scope: Scope) -> bool:
    """Return whether a client prefers errors as RFC 9457 describes them to those in the envelope."""
    header = _header(scope, b"accept")

    if PROBLEM_JSON not in header.lower():
        return False

    qualities = dict(_ranges(header))
    quality = qualities.get(PROBLEM_JSON, 0.0)
    return quality > 0 and quality >= qualities.get("application/json", 0.0)


def has_content_type(start: Message, kind: bytes) -> bool:
    """Return whether the start of a reply announces a content type, whatever its parameters."""
    return any(n == b"content-type" and v.startswith(kind) for n, v in start.get("headers", ()))


def _header(scope: Mapping[str, Any], wanted: bytes) -> str:
    return ",".join(value.decode("latin-1") for name, value in scope.get("headers", ()) if name == wanted)


def _ranges(header: str) -> Iterator[tuple[str, float]]:
    """Yield the names in a header such as ``de, en;q=0.5`` with their qualities, 1 where none is given."""
    for part in header.lower().split(",", _MOST_RANGES)[:_MOST_RANGES]:
        name, *parameters = (piece.strip() for piece in part.split(";"))
        quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")

        try:
            yield name, min(1.0, max(0.0, float(quality)))
        except ValueError:
            yield name, 0.0
