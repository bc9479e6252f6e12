"""Fields that every message of a piece of work carries, such as the id of a request."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from loguru import logger

__all__ = ("current_fields", "event", "log_context", "provide", "withdraw")

Provider = Callable[[], object]

_providers: dict[str, Provider] = {}
_TRACE: Final = "opentelemetry.trace"
_NOTHING: Final[dict[str, object]] = {}


def log_context(**fields: object) -> AbstractContextManager[None]:
    """
    Add fields to every message logged inside a ``with`` block.

    The fields follow the code through awaits and into tasks and threads that copy the context.
    They are on messages of loguru and, through `LogInterceptor`, of standard logging.

    Args:
        **fields: The fields; inner blocks add to and win over outer ones.

    Example:
        >>> from loguru import logger
        >>> number = logger.add(lambda m: print(m.record["extra"]), format="{message}")
        >>> with log_context(order=7):
        ...     logger.info("paid")
        {'order': 7}
        >>> logger.remove(number)
    """
    return logger.contextualize(**fields)


def event(message: str, level: str | int = "INFO", /, **fields: object) -> None:
    """
    Log a message with fields. Braces in the message are never formatted.

    Args:
        message: What happened; best always the same text, with what differs in the fields.
        level: The level, by name in capitals or by number.
        **fields: The fields, of any name.

    Example:
        >>> from loguru import logger
        >>> number = logger.add(lambda m: print(m.record["message"], m.record["extra"]), format="{message}")
        >>> event("order paid {sic}", order=7, level="gold")
        order paid {sic} {'order': 7, 'level': 'gold'}
        >>> logger.remove(number)
    """
    logger.bind(**fields).opt(depth=1).log(level, message)


def provide(name: str, provider: Provider) -> None:
    """
    Add a field whose value is asked for with every message.

    This is how the application layer hands in the id of the current request, without either
    library knowing the other.

    Args:
        name: The field.
        provider: Returns its value now; a false value leaves the field out. Must not log.
    """
    _providers[name] = provider


def withdraw(name: str) -> None:
    """Undo `provide`; nothing happens when there is no such field."""
    _providers.pop(name, None)


def current_fields() -> dict[str, object]:
    """Return the provided fields that have a value now, and the ids of OpenTelemetry's current span."""
    if not _providers and _TRACE not in sys.modules:
        return _NOTHING

    fields = {name: value for name, provider in _providers.items() if (value := provider())}
    return fields | _span_ids()


def _span_ids() -> dict[str, object]:
    """Return the ids of the current span; only an application that has loaded OpenTelemetry has one."""
    get_span = getattr(sys.modules.get(_TRACE), "get_current_span", None)  # None while it is being imported

    if get_span is None:
        return {}

    span = get_span().get_span_context()
    return {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"} if span.is_valid else {}
