"""SQLAlchemy's own test suite, statement by statement through its engine and through our client.

    python -m tools.conformance.sqlalchemy_suite [DRIVERS] [TEST FILES] [--soak] [--oldest]

Downloads the source distribution of the installed version into ``.dev/``, runs the tests that execute
statements with the plugin beside this file, and prints what differs by class. A class of
``sqlalchemy_differences.json`` has its reason there; any other is a failure, and so is a class that
nothing belongs to any more. Without ``--soak`` a part of the suite runs, over one driver of each database;
with it the figures are written to ``docs/conformance.md``, which takes about five minutes for each driver.
With ``--oldest`` all of that runs in an environment with the oldest SQLAlchemy that ws-pool allows.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from tools.checks._conformance import PAGE, written
from tools.conformance._sources import PLACE, ROOT, interpreter, source
from tools.servers import MariaDBServer, PostgresServer

KNOWN = Path(__file__).with_name("sqlalchemy_differences.json")
FIELDS = ("driver", "kind", "test", "statement", "theirs", "ours")
SOME = ("test/sql/test_query.py", "test/sql/test_functions.py")
ALL = (
    *SOME, "test/sql/test_returning.py", "test/sql/test_insert_exec.py", "test/sql/test_resultset.py",
    "test/sql/test_defaults.py", "test/sql/test_delete.py", "test/sql/test_update.py",
    "test/sql/test_types.py", "test/dialect/test_suite.py",
)  # fmt: skip
OF_DIALECT = {
    "mysql": ("test_query.py", "test_on_duplicate.py", "test_for_update.py", "test_types.py"),
    "sqlite": ("test_on_conflict.py", "test_types.py"),
    "postgresql": ("test_query.py", "test_on_conflict.py", "test_types.py", "test_async_pg*.py"),
}
DIALECTS = {
    "aiosqlite": "sqlite", "aiomysql": "mysql", "asyncmy": "mysql", "asyncpg": "postgresql",
    "psycopg": "postgresql",
}  # fmt: skip
NEEDS = ("cryptography", "pytest-xdist", "pytest-timeout")  # besides the drivers, SQLAlchemy and pytest
USUAL = ("aiosqlite", "asyncmy", "asyncpg")


@contextmanager
def database(driver: str) -> Iterator[str]:
    """Start the server of a driver, with the schemas that the tests need; yield its URL."""
    if DIALECTS[driver] == "sqlite":
        yield "sqlite+aiosqlite:///:memory:"
        return

    server = PostgresServer() if DIALECTS[driver] == "postgresql" else MariaDBServer()
    server.start()

    try:
        if isinstance(server, PostgresServer):
            for statement in (
                "CREATE SCHEMA test_schema", "CREATE SCHEMA test_schema_2",
                "CREATE EXTENSION hstore", "CREATE EXTENSION citext",
            ):  # fmt: skip
                server.execute(statement, database="test")

            name = "psycopg_async" if driver == "psycopg" else driver  # its URL alone is that of both kinds
            yield server.url.replace("postgresql://", f"postgresql+{name}://", 1)
        else:
            server.execute("CREATE DATABASE test_schema")
            server.execute("CREATE DATABASE test_schema_2")
            yield server.url.replace("mysql://", f"mysql+{driver}://", 1) + "?charset=utf8mb4"
    finally:
        server.stop()


def run(driver: str, uri: str, tests: tuple[str, ...]) -> tuple[Counter[str], list[dict[str, str]]]:
    """Run tests over a driver; return how many answers were compared, by kind, and the differences."""
    out = PLACE / f"{driver}-{version('sqlalchemy')}.jsonl"
    out.unlink(missing_ok=True)
    paths = [str(ROOT), *(str(path) for path in sorted(ROOT.glob("packages/*/src")))]
    options = ["-n0", "-q", "-p", "no:cacheprovider", "--tb=no", "--maxfail=100000"]
    plugin = ["-p", "tools.conformance.sqlalchemy_plugin"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *plugin, *options, "--dburi", uri, *tests],
        cwd=source("SQLAlchemy", version("sqlalchemy")),
        env={**os.environ, "CONFORMANCE_OUT": str(out), "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,  # whether their tests pass is not the question
    )
    print(f"\n{driver}: {(ran.stdout.splitlines() or [ran.stderr])[-1]}")

    if ran.returncode > 1:  # not that of failed tests: they were not run, or not all
        print(ran.stdout[-2000:], ran.stderr[-2000:])
        message = f"the suite did not run over {driver}: pytest ended with {ran.returncode}"
        raise SystemExit(message)

    counts: Counter[str] = Counter(json.loads(out.with_suffix(".counts").read_text()))
    lines = out.read_text().splitlines() if out.exists() else []
    return counts, [{"driver": driver, **json.loads(line)} for line in lines]


def sort_out(
    differences: list[dict[str, str]], known: list[dict[str, str]]
) -> tuple[Counter[str], list[dict[str, str]]]:
    """Count the known differences by their reason, and return the others."""
    reasons: Counter[str] = Counter()
    others = []

    for found in differences:
        for entry in known:
            if all(re.search(entry[field], found[field], re.DOTALL) for field in FIELDS if field in entry):
                reasons[entry["reason"]] += 1
                break
        else:
            others.append(found)

    return reasons, others


def figures_of(
    driver: str, counts: Counter[str], differences: list[dict[str, str]], known: list[dict[str, str]]
) -> tuple[list[str], Counter[str], list[dict[str, str]]]:
    """Return the figures of a run, its known differences by their reason, and the others."""
    compared = {kind: count for kind, count in counts.items() if not kind.startswith("not compared")}
    equal = sum(count for kind, count in compared.items() if kind.startswith("equal"))
    found, others = sort_out(differences, known)
    first = f"SQLAlchemy {version('sqlalchemy')}, its own tests over {driver}: {equal:,} of "
    first += f"{sum(compared.values()):,} answers equal, {len(others)} without a reason"
    more = [f"  known: {count} times: {reason}" for reason, count in found.most_common()]
    return [first, *more], found, others


def oldest() -> str:
    """Return the oldest SQLAlchemy that ws-pool allows."""
    project = tomllib.loads((ROOT / "packages/ws-pool/pyproject.toml").read_text(encoding="utf-8"))["project"]
    needs = project["optional-dependencies"]["mysql"]
    return next(str(found[1]) for need in needs if (found := re.match(r"sqlalchemy\S*?>=([\d.]+)", need)))


def run_oldest(arguments: list[str]) -> int:
    """Run all of this in an environment with the oldest SQLAlchemy, and else what is installed here."""
    others = (*DIALECTS, "psycopg-binary", "greenlet", "pymysql", "redis", "pytest")
    wanted = [f"sqlalchemy[asyncio]=={oldest()}", *(f"{name}=={version(name)}" for name in others), *NEEDS]
    python = interpreter("sqlalchemy-oldest", wanted)
    paths = [ROOT, *ROOT.glob("packages/*/src")]
    ran = subprocess.run(
        [python, "-m", "tools.conformance.sqlalchemy_suite", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        check=False,  # it has printed why
    )
    return ran.returncode


def write_page(driver: str, lines: list[str]) -> None:
    """Put the figures of a whole suite on the page."""
    which = "the oldest version, " if version("sqlalchemy") == oldest() else ""
    title = f"sqlalchemy, {which}the whole suite, {driver}"
    today = dt.datetime.now(dt.UTC).date()
    text = written(PAGE.read_text(encoding="utf-8"), title, "\n".join(lines), str(today))
    PAGE.write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Run the suite over the drivers that are named, and print the figures; return 1 if one has no reason."""
    soak = "--soak" in arguments

    if "--oldest" in arguments:
        return run_oldest([argument for argument in arguments if argument != "--oldest"])

    theirs = source("SQLAlchemy", version("sqlalchemy"))
    named = [name for name in arguments if name in DIALECTS]
    chosen = tuple(name for name in arguments if name.startswith("test/"))
    known: list[dict[str, str]] = json.loads(KNOWN.read_text())
    reasons: Counter[str] = Counter()
    figures: list[str] = []
    failed = 0

    for driver in named or (tuple(DIALECTS) if soak else USUAL):
        dialect = DIALECTS[driver]
        # Some files have another name in SQLAlchemy 2.0.
        of_dialect = tuple(
            str(path.relative_to(theirs))
            for name in OF_DIALECT[dialect]
            for path in sorted(theirs.glob(f"test/dialect/{dialect}/{name}"))
        )
        tests = chosen or ((*ALL, *of_dialect) if soak else SOME)

        with database(driver) as uri:
            counts, differences = run(driver, uri, tests)

        lines, found, others = figures_of(driver, counts, differences, known)
        figures += lines
        reasons += found
        failed += len(others) + (not counts)

        if soak and not chosen:
            write_page(driver, lines)

        for one in others[:20]:
            print(json.dumps(one, indent=2))

    if soak and not named and not chosen:
        stale = sorted({entry["reason"] for entry in known} - set(reasons))
        figures += [f"  nothing differs any more for this reason: {reason}" for reason in stale]
        failed += len(stale)

    print("figures:", *figures, sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
