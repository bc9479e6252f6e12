"""Print how much of 1.1.4 works, or record it anew."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.conformance.legacy.compare import DIFFERENCES, HERE, RECORDED, missing_names, runner

VERSION = "1.1.4"
PLACE = HERE.parents[2] / ".dev" / "conformance" / "legacy-env"


def main() -> int:
    """Run the command line; 1 when something is missing that is not listed."""
    parser = argparse.ArgumentParser(prog="python -m tools.conformance.legacy", description=__doc__)
    parser.add_argument("--record", metavar="PYTHON", help="a Python 3.8 to install 1.1.4 into")
    options = parser.parse_args()

    if options.record:
        record(options.record)
        return 0

    rows = list(table())

    for row in rows:
        print("{:<44} {:<10} {}".format(*row))

    works = sum(1 for row in rows if row[1] == "works")
    print(f"\n{works} of {len(rows)} as in {VERSION}")
    return int(any(row[1] == "missing" for row in rows))


def table() -> list[tuple[str, str, str]]:
    """Return each name and behaviour with how it is: works, differs (documented), or missing."""
    lacking = dict(missing_names())
    names = [
        f"{path}.{name}" for path, found in RECORDED["names"].items() for name in found if path not in lacking
    ]
    rows = [(name, "works", "") for name in names if name not in lacking]

    for name, problem in lacking.items():
        rows.append((name, "differs" if name in DIFFERENCES["names"] else "missing", problem))

    with runner() as run:
        for name, expected in RECORDED["behaviours"].items():
            found = run(name)

            if found.get("result", found) == expected:
                rows.append((name, "works", ""))
            else:
                known = DIFFERENCES["behaviours"].get(name)
                rows.append(
                    (name, "missing" if known is None else "differs", known or json.dumps(found)[:200])
                )

    return rows


def record(interpreter: str) -> None:
    """Install 1.1.4 and write what it has and does."""
    if not PLACE.exists():
        subprocess.run([interpreter, "-m", "venv", str(PLACE)], check=True)
        subprocess.run([PLACE / "bin/pip", "install", "-q", f"wintersweet=={VERSION}"], check=True)

    python = str(PLACE / "bin/python")
    walked = subprocess.run([python, HERE / "walk.py"], check=True, capture_output=True, text=True)
    found: dict[str, Any] = {"version": VERSION, "names": json.loads(walked.stdout), "behaviours": {}}

    with runner(python) as run:
        for name in RECORDED["behaviours"]:
            reply = run(name)

            if "result" not in reply:
                print(f"{name} fails on {VERSION}: {reply['error']}: {reply['text']}", file=sys.stderr)
                continue

            found["behaviours"][name] = reply["result"]

    text = json.dumps(found, indent=1, sort_keys=True)
    Path(HERE / "recorded.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
