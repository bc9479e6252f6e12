"""What replies about streams look like, whatever the protocol version. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ("FIELD", "entries_of", "order_of", "payload_of", "text_of")

FIELD: Final = "event"
"""The field of a stream's entry that holds the event."""
_FIELDS: Final = (FIELD, FIELD.encode())


def entries_of(reply: Any) -> list[Any]:  # Any: a reply, whose shape depends on the protocol version
    """List the entries of all streams: a mapping or pairs, with the entries or a list that holds them."""
    pairs = reply.items() if isinstance(reply, Mapping) else reply or ()
    found: list[Any] = []

    for _, entries in pairs:
        nested = len(entries) == 1 and isinstance(entries[0], list)
        found.extend(entries[0] if nested else entries)

    return found


def payload_of(fields: Any) -> str:  # Any: a reply
    """Give the event of an entry; empty for one that is no text, or was deleted while it was pending."""
    fields = fields or ()
    items = fields.items() if isinstance(fields, Mapping) else zip(fields[::2], fields[1::2], strict=True)

    try:
        return next((text_of(value) for name, value in items if name in _FIELDS), "")
    except UnicodeDecodeError:
        return ""


def order_of(entry_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def text_of(value: Any) -> str:  # Any: bytes or str
    return value.decode() if isinstance(value, bytes) else str(value)
