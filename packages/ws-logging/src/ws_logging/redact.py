"""Keep secrets out of logs: the masker of `ws_core.redaction`, under the name that logging gave it."""

from __future__ import annotations

from ws_core.redaction import MASK, SECRET_NAMES, Redactor

__all__ = ("DEFAULT_NAMES", "MASK", "Redactor")

DEFAULT_NAMES = SECRET_NAMES
