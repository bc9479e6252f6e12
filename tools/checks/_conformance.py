"""Peers' own test suites, run against ours; the page with their figures is written from what they print."""

from __future__ import annotations

import datetime as dt
import re
import sys
import threading
from functools import partial

from tools.checks._model import ROOT, Check, Failed, command

__all__ = ("conformance_checks", "written")

PAGE = ROOT / "docs" / "conformance.md"
SUITES = ROOT / "tools" / "conformance"
LINES = 40  # of a suite's output, at most, that are its figures
COSTS = {"fastapi": 200, "redis": 130, "sqlalchemy": 120, "starlette": 20}
HEAD = """# Conformance

Where a part of ours promises to behave as a library that people know, that library's own tests decide. They
come with its source distribution, and are run with our object in the place of theirs: `python3 tools/dev.py
check conformance`, or one suite, such as `check conformance:fastapi`. What differs is named with its reason
in `tools/conformance`; a difference without a reason fails the check, and so does a reason without a
difference. The figures below are written by the check, those of whole suites by `python -m
tools.conformance.sqlalchemy_suite --soak`, and with `--oldest` for the oldest SQLAlchemy that ws-pool allows.

For crontabs these are the tests of cronsim and croniter: each time that they compute is computed by the
trigger of `CrontabTask` too. The parser of Debian's cron is not run, since it comes with no package of
PyPI. What follows its rules (which jobs follow elapsed time, fixed times that a change of the clock skips
or repeats, days given by both fields, `N-N/S`) is checked by tests of ours, `tests/tasks/test_triggers.py`
and `test_cron.py`, on the days of real changes in nine time zones.
"""

_lock = threading.Lock()


def conformance_checks() -> list[Check]:
    """Return a check for each suite there is."""
    names = sorted(path.stem.removesuffix("_suite") for path in SUITES.glob("*_suite.py"))
    return [
        Check(f"conformance:{name}", partial(run_suite, name), cost=COSTS.get(name, 60)) for name in names
    ]


def run_suite(name: str) -> str | None:
    """Each test of a peer that passes on the peer passes on ours, or is named with its reason."""
    words = [sys.executable, "-m", f"tools.conformance.{name}_suite"]
    said = command(words, timeout=900)
    # What pip says of its registries has no place on the page.
    lines = [line for line in said.rpartition("figures:\n")[2].splitlines() if "WARNING" not in line]
    text = re.sub(r" in [\d.]+s( \([\d:]+\))?", "", "\n".join(lines))  # how long it took is not a figure
    figures = text.strip().splitlines()[-LINES:]

    if not figures:
        raise Failed(f"the suite {name} has printed no figures")

    with _lock:
        page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else HEAD
        today = dt.datetime.now(dt.UTC).date()
        PAGE.write_text(written(page, name, "\n".join(figures), str(today)), encoding="utf-8")

    return figures[0]


def written(page: str, name: str, figures: str, today: str) -> str:
    r"""
    Put the figures of a suite into the page.

    Args:
        page: The page as it is.
        name: The suite's name.
        figures: What it printed.
        today: The date; it changes only with the figures.

    Returns:
        The page as it should be.

    Example:
        >>> page = written("# Page\n", "x", "1 passed", "2026-01-01")
        >>> written(page, "x", "1 passed", "2026-02-02") == page
        True
        >>> print(written(page, "x", "2 passed", "2026-02-02").splitlines()[-4:])
        ['Seen on 2026-02-02.', '```text', '2 passed', '```']
    """
    title = f"## {name}"
    block = f"```text\n{figures}\n```\n"
    section = re.search(rf"^{title}\n.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)

    if section is None:
        return f"{page.rstrip()}\n\n{title}\n\nSeen on {today}.\n{block}"

    if block in section[0]:
        return page

    text = f"{title}\n\nSeen on {today}.\n{block}"
    rest = page[section.end() :]
    return page[: section.start()] + text + (f"\n{rest}" if rest else "")
