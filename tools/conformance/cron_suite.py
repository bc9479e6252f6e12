"""cronsim's and croniter's own tests: each time that they compute is computed by `CronTrigger` too.

    python -m tools.conformance.cron_suite

Downloads the source distributions into ``.dev/``, with an environment that has what their tests need.
A difference has a class, with its reason, in ``cron_differences.json``, or is a failure; so is a class
without differences, or with another number of them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from tools.conformance._sources import PLACE, ROOT, interpreter, source

KNOWN = Path(__file__).with_name("cron_differences.json")
# The last cronsim with a source distribution; its tests run on the version that we use.
SOURCES: Final = {"cronsim": "2.6", "croniter": "7.0.0"}
TESTS: Final = {
    "cronsim": ["tests/test_cronsim.py"],
    "croniter": [
        f"src/croniter/tests/{name}.py" for name in ("test_croniter", "test_croniter_dst_repetition")
    ],
}
NEEDS: Final = ("pytest>=9.0,<9.2", "pytz", "python-dateutil", "tzlocal", "anyio>=4.9,<5", "tzdata")


def python() -> str:
    """Return the interpreter of an environment that has what the tests need."""
    versions = {"cronsim": version("cronsim"), "croniter": SOURCES["croniter"]}
    return interpreter("cron", [*(f"{name}=={number}" for name, number in versions.items()), *NEEDS])


def answers(name: str) -> dict[str, tuple[Any, Any]]:  # Any: JSON
    """Run the tests of a library, and return both answers to each question."""
    written = PLACE / f"{name}-answers.json"
    written.unlink(missing_ok=True)
    theirs = source(name, SOURCES[name])
    paths = [ROOT, ROOT / "packages/ws-core/src", ROOT / "packages/ws-tasks/src", theirs / "src"]
    pytest = [
        python(),
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        "--rootdir",
        ".",
        "--tb=no",
    ]
    subprocess.run(
        [*pytest, "-p", "tools.conformance.cron_plugin", *TESTS[name]],
        cwd=theirs,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "PYTHONSAFEPATH": "1",  # the version of cronsim that we use, not the one beside the tests
            "WS_CRON_ANSWERS": str(written),
        },
        capture_output=True,
        check=False,  # what fails, fails on the libraries themselves
    )
    found: dict[str, tuple[Any, Any]] = json.loads(written.read_text(encoding="utf-8"))
    return found


def classify(question: str, theirs: Any, ours: Any) -> str:  # Any: JSON
    """Return the class of a difference; empty for one that no rule explains."""
    expression, zone, *_ = json.loads(question)
    fields = expression.split()[-5:]

    for name, holds in _CLASSES.items():
        if holds(expression, fields, zone, theirs, ours):
            return name

    return ""


def _refused(answer: Any) -> bool:  # Any: JSON
    return str(answer).startswith("refused")


def _has(pattern: str) -> _Rule:
    """Return a rule for expressions that contain something."""
    found = re.compile(pattern, re.IGNORECASE)
    return lambda expression, *_: found.search(expression) is not None


def _one_value(_: str, fields: list[str], *__: Any) -> bool:
    return any(re.fullmatch(r"(\w+)-\1(/\d+)?", term) for field in fields for term in field.split(","))


def _star_and_more(_: str, fields: list[str], *__: Any) -> bool:
    return any(len(field) > 1 and field.startswith("*") for field in (fields[2], fields[4]))


_Rule = Callable[[str, list[str], str, Any, Any], bool]
# In this order: the first that holds.
_CLASSES: Final[dict[str, _Rule]] = {
    "step of a last day": _has(r"\bLW?/"),
    "date that never comes": lambda *given: (
        _refused(given[4]) and re.search("no date|'3[01]' is wrong", given[4]) is not None
    ),
    "words of theirs": _has(r"-L|\bL[1-7]|W\d|\d+W|-\w+#|\?"),
    "day and nth weekday": lambda *given: _refused(given[3]) and "#" in given[0] and given[1][2] != "*",
    "literal beside a nth weekday": lambda *given: _refused(given[3]) and "mixing" in given[3],
    "wrap-around range": lambda *given: _refused(given[4]) and "goes upwards" in given[4],
    "range of one value": _one_value,
    "star with a step or list": _star_and_more,
    "change of clocks": lambda *given: given[2] not in {"None", "UTC"},
}


def main() -> int:
    """Compare both; return how many classes have no reason, or another number of differences."""
    known: dict[str, dict[str, Any]] = json.loads(KNOWN.read_text(encoding="utf-8"))
    wrong = 0

    for name in SOURCES:
        found = answers(name)
        differing = {question: pair for question, pair in found.items() if pair[0] != pair[1]}
        classes = Counter(classify(question, *pair) for question, pair in differing.items())
        figures = f"{len(found) - len(differing)} of {len(found)} answers are equal"
        print(f"figures:\n{name} {SOURCES[name]}, its own tests, each time also from CrontabTask: {figures}")
        expected = {key: entry["count"] for key, entry in known.get(name, {}).items()}

        for key in sorted({*classes, *expected}):
            count, reason = classes.get(key, 0), known.get(name, {}).get(key, {}).get("reason")
            print(f"  {count:4} {key or 'without a reason'}: {reason or 'not in cron_differences.json'}")

            if count != expected.get(key):
                wrong += 1
                shown = [pair for pair in differing.items() if classify(pair[0], *pair[1]) == key]
                print(
                    *(f"       {question}: {theirs} / {ours}" for question, (theirs, ours) in shown[:40]),
                    sep="\n",
                )

    return wrong


if __name__ == "__main__":
    sys.exit(min(main(), 1))
