"""How the command line speaks: results on stdout, all else on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text


def stdout() -> Console:
    """Return the console for results."""
    return Console(highlight=False)


def stderr() -> Console:
    """Return the console for messages."""
    return Console(stderr=True, highlight=False)


def print_json(answer: object) -> None:
    """Print a result for programs: JSON on one line, whatever the width of the terminal."""
    sys.stdout.write(json.dumps(answer, default=str) + "\n")
    sys.stdout.flush()  # a long command is read while it runs


def percentile(values: Sequence[float], share: float) -> float:
    """
    Return the value that the given share of all values does not exceed (nearest rank); 0.0 without values.

    Example:
        >>> percentile([4.0, 1.0, 3.0, 2.0], 0.5)
        2.0
    """
    if not values:
        return 0.0

    return sorted(values)[max(1, math.ceil(len(values) * share)) - 1]


def fail(message: str) -> None:
    """Print what went wrong, in one paragraph."""
    stderr().print("wintersweet:", message, style="red", markup=False, soft_wrap=True)


def new_table(title: str, *columns: str) -> Table:
    """Return an empty table; columns of figures, marked by #, are set to the right."""
    made = Table(title=escape(title) or None, title_justify="left", box=None, header_style="bold")

    for column in columns:
        figures = column.startswith("#")
        made.add_column(column.lstrip("#"), justify="right" if figures else "left", overflow="fold")

    return made


def add_row(rows: Table, *cells: object, style: str = "") -> None:
    """Add a row of whatever there is to show: a `Text` as it is, anything else as text without markup."""
    shown = ("" if cell is None else cell for cell in cells)
    rows.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in shown), style=style)


def success(ok: bool) -> Text:  # noqa: FBT001 - a value to show, not a switch
    """Return how a table shows that something works, or not."""
    return Text("ok", "green") if ok else Text("failed", "red")
