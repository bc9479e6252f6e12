"""SQLAlchemy's own test suite, statement by statement through its engine and through our client.

    python -m tools.conformance.sqlalchemy_suite aiosqlite [TEST FILES]

Downloads the source distribution of the installed version into ``.dev/``, runs the tests that execute
statements with the plugin beside this file, and prints what differs by class. A class of
``sqlalchemy_differences.json`` has its reason there; any other is a failure.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from tools.servers import MariaDBServer

ROOT = Path(__file__).resolve().parents[2]
KNOWN = Path(__file__).with_name("sqlalchemy_differences.json")
TESTS = (
    "test/sql/test_query.py", "test/sql/test_resultset.py", "test/sql/test_returning.py",
    "test/sql/test_insert_exec.py", "test/sql/test_functions.py", "test/sql/test_defaults.py",
    "test/sql/test_delete.py", "test/sql/test_update.py", "test/sql/test_types.py",
    "test/dialect/test_suite.py",
)  # fmt: skip
OF_DIALECT = {
    "mysql": ("test_query.py", "test_on_duplicate.py", "test_for_update.py", "test_types.py"),
    "sqlite": ("test_on_conflict.py", "test_types.py"),
}


def source() -> Path:
    """Return the unpacked source distribution of the installed SQLAlchemy."""
    name = f"sqlalchemy-{version('sqlalchemy')}"
    place = ROOT / ".dev" / "conformance"

    if not (place / name).is_dir():
        place.mkdir(parents=True, exist_ok=True)
        wanted = f"SQLAlchemy=={version('sqlalchemy')}"
        command = ["pip", "download", "--no-deps", "--no-binary", "SQLAlchemy", "-d", str(place), wanted]
        subprocess.run(command, check=True)

        with tarfile.open(place / f"{name}.tar.gz") as archive:
            archive.extractall(place, filter="data")

    return place / name


def run(driver: str, uri: str, tests: tuple[str, ...]) -> list[dict[str, str]]:
    """Run tests over a driver; print the figures, and return the differences."""
    out = ROOT / ".dev" / "conformance" / f"{driver}.jsonl"
    out.unlink(missing_ok=True)
    paths = [str(ROOT), *(str(path) for path in sorted(ROOT.glob("packages/*/src")))]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "tools.conformance.sqlalchemy_plugin",
            "-n0",
            "-q",
            "-p",
            "no:cacheprovider",
            "--tb=no",
            "--maxfail=100000",
            "--dburi",
            uri,
            *tests,
        ],
        cwd=source(),
        env={**os.environ, "CONFORMANCE_OUT": str(out), "PYTHONPATH": os.pathsep.join(paths)},
        check=False,
    )  # fmt: skip - whether their tests pass is not the question
    counts: dict[str, int] = json.loads(out.with_suffix(".counts").read_text())
    print(f"\n{driver}, SQLAlchemy {version('sqlalchemy')}: {sum(counts.values())} answers compared")

    for kind, count in sorted(counts.items()):
        print(f"  {count:7d} {kind}")

    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def unknown(differences: list[dict[str, str]]) -> list[dict[str, str]]:
    """Print the known differences by their reason, and return the others."""
    known = json.loads(KNOWN.read_text())
    reasons: Counter[str] = Counter()
    others = []

    for found in differences:
        for entry in known:
            fields = ("kind", "test", "statement", "theirs", "ours")

            if all(re.search(entry[field], found[field], re.DOTALL) for field in fields if field in entry):
                reasons[entry["reason"]] += 1
                break
        else:
            others.append(found)

    for reason, count in reasons.most_common():
        print(f"  {count:7d} known: {reason}")

    return others


def main(arguments: list[str]) -> int:
    """Run the suite over the drivers that are named, all by default."""
    drivers = [name for name in arguments if not name.startswith("test/")]
    chosen = tuple(name for name in arguments if name.startswith("test/"))
    failed = 0

    for driver in drivers or ("aiosqlite", "aiomysql", "asyncmy"):
        dialect = "sqlite" if driver == "aiosqlite" else "mysql"
        tests = chosen or (*TESTS, *(f"test/dialect/{dialect}/{name}" for name in OF_DIALECT[dialect]))

        if driver == "aiosqlite":
            others = unknown(run(driver, "sqlite+aiosqlite:///:memory:", tests))
        else:
            server = MariaDBServer()
            server.start()

            try:
                server.execute("CREATE DATABASE test_schema")
                server.execute("CREATE DATABASE test_schema_2")
                uri = server.url.replace("mysql://", f"mysql+{driver}://", 1) + "?charset=utf8mb4"
                others = unknown(run(driver, uri, tests))
            finally:
                server.stop()

        for found in others[:20]:
            print(json.dumps(found, indent=2))

        print(f"  {len(others):7d} unknown")
        failed += len(others)

    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
