"""OpenTelemetry for all libraries in use, whatever they are: each publishes how it is begun."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import metadata
from typing import Final

from ws_core.errors import MissingExtraError, describe
from ws_web.errors import SettingsError

_GROUP: Final = "wintersweet.otel"
"""Entry points: functions that begin, and return what ends it: a function, or an object with ``close``."""


@contextmanager
def instrumented() -> Iterator[None]:
    """Report the operations and numbers of every library for the length of a block."""
    from ws_core.otel import observe  # noqa: PLC0415 - an extra

    with ExitStack() as stack:
        stack.callback(observe().close)

        for entry in sorted(metadata.entry_points(group=_GROUP), key=lambda entry: entry.name):
            try:
                begun = entry.load()()
                stack.callback(getattr(begun, "close", begun))
            except MissingExtraError:
                raise
            except Exception as error:
                message = f"OTEL: {entry.value} cannot be started: {describe(error, with_type=True)}"
                raise SettingsError(message) from error

        yield
