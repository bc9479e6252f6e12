"""Operations of pools as tracers and watchers see them: statements, commands, requests and events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Operation:
    """
    What a call does: its name and its attributes, in OpenTelemetry's words.

    ``duration`` is the metric that has its time, or empty for none. ``parent`` are the headers that came
    with a message; what is done for the message then belongs to the operation. ``waits``: its time is that
    until something comes, as of a blocking command, and says nothing of the server.
    """

    name: str
    attributes: Mapping[str, str | int]
    duration: str = "db.client.operation.duration"
    kind: Literal["client", "producer", "consumer"] = "client"
    parent: Mapping[str, str] | None = None
    waits: bool = False


class Span(Protocol):
    """An operation under way."""

    def headers(self) -> Mapping[str, str]:
        """Return the headers that carry the trace to a server."""
        ...

    def end(self, error: BaseException | None, attributes: Mapping[str, str | int]) -> None:
        """End, with what only the result could show."""


class Tracer(Protocol):
    """Where operations are reported."""

    def begin(self, operation: Operation) -> Span:
        """Begin an operation in the present context."""
        ...


def failure(error: BaseException | None, learned: Mapping[str, str | int]) -> str:
    """Return OpenTelemetry's ``error.type`` of an operation that has ended; empty when it has succeeded."""
    # An error's text may have values in it, as that of a duplicate key has: its type must do.
    if error is not None:
        return type(error).__qualname__

    status = int(learned.get("http.response.status_code", 0))
    return str(status) if status >= 400 else ""
