"""How docstrings are read for the reference."""

from __future__ import annotations

import re

import griffe

__all__ = ("Examples",)


class Examples(griffe.Extension):
    """Read the section ``Example:`` as what it is; griffe knows only the plural."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Rewrite the heading before the docstring is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
