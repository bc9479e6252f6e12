"""Make characters visible that could forge a line, hide a part of it, or move its text around."""

from __future__ import annotations

import re
from typing import Any, Final

# Any below: objects of the application, of any type.

# Controls (C0, DEL, C1 with NEL), the line and paragraph separators of Unicode, the controls of
# writing direction, and halves of surrogate pairs, which no encoding can hold.
_BEYOND_ASCII: Final = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE = re.compile(f"[\x00-\x1f{_BEYOND_ASCII}]")
_UNSAFE_IN_JSON = re.compile(f"[{_BEYOND_ASCII}]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def escape(text: str) -> str:
    r"""
    Make control characters visible.

    Example:
        >>> escape("one\ntwo\x1b[31m")
        'one\\ntwo\\x1b[31m'
    """
    # isprintable() is many times faster than a search, and true of nearly every text.
    return text if text.isprintable() else _UNSAFE.sub(_visible, text)


def _visible(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def escape_json(document: str) -> str:
    """Escape in a JSON document what `json` leaves as it is; the document stays equal."""
    if document.isascii() and "\x7f" not in document:
        return document

    return _UNSAFE_IN_JSON.sub(_as_json, document)


def _as_json(match: re.Match[str]) -> str:
    # Halves of surrogate pairs become text: strict parsers refuse them even when they are escaped.
    head = r"\\u" if _SURROGATE.match(match[0]) else r"\u"
    return f"{head}{ord(match[0]):04x}"


def has_surrogates(text: str) -> bool:
    """Return whether a text holds halves of surrogate pairs."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def safe_str(value: Any) -> str:
    """Return a value as text, also when its ``__str__`` raises."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a broken object of the application must not cost the message
        return safe_repr(value)


def safe_repr(value: Any) -> str:
    """Return the representation of a value, also when its ``__repr__`` raises."""
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - as above
        return f"<{type(value).__name__}: repr failed with {type(error).__name__}>"
