#!/usr/bin/env python3
"""Prepare and verify releases. Nothing here publishes: the last step is a person's.

python3 tools/release.py prepare ws-pool minor   new version and changelog entry in the tree, to be reviewed
python3 tools/release.py verify [NAME …]         all that must hold before a tag: builds, contents, metadata,
                                                 changes of the interface, clean installs, budgets
python3 tools/release.py tags                    the tags that the present versions ask for
python3 tools/release.py --dry-run [NAME …]      try a release of the present versions: what it would write,
                                                 all of verify, and the tags; nothing in the tree changes

`current` in place of `minor` releases the version that is already written there, such as the very first.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import dev
from tools.checks._model import IMPORT_NAMES, PACKAGES, ROOT, Check, Failed, command

__all__ = ("bump", "changelog_for", "import_cost", "part_needed", "release_notes", "widened")

PARTS = ("current", "patch", "minor", "major")

# Milliseconds of the processor that `import` may add to the start of Python, and distributions that an
# install may bring.
BUDGETS: Mapping[str, tuple[float, int]] = {
    "ws-core": (60, 1),
    "ws-logging": (120, 4),
    "ws-tasks": (150, 8),
    "ws-redislock": (250, 5),
    "ws-pool": (80, 2),
    "ws-web": (900, 20),
    "ws-all": (1500, 76),
    "wintersweet": (1500, 77),
}


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one command.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--dry-run",
        nargs="*",
        metavar="NAME",
        help="try a release, and change nothing; all when none is given",
    )
    actions = parser.add_subparsers(dest="action")
    prepare_parser = actions.add_parser("prepare", help="write the new version and its changelog entry")
    prepare_parser.add_argument("name", choices=sorted(IMPORT_NAMES))
    prepare_parser.add_argument("part", choices=PARTS)
    verify_parser = actions.add_parser("verify", help="check all that must hold before a tag")
    verify_parser.add_argument(
        "names", nargs="*", metavar="NAME", help="distributions; all when none is given"
    )
    actions.add_parser("tags", help="print the tags that the present versions ask for")
    options = parser.parse_args(argv)

    if (options.action is None) == (options.dry_run is None):
        parser.error("say either what to do, or --dry-run")

    try:
        if options.dry_run is not None:
            return dry_run(options.dry_run)

        if options.action == "prepare":
            print(prepare(options.name, options.part))
        elif options.action == "tags":
            print("\n".join(tag_of(name) for name in IMPORT_NAMES if tag_of(name) not in tags()))
        else:
            return verify(options.names)
    except (Failed, dev.Stop) as failed:
        print(f"✗ {failed}", file=sys.stderr)
        return 1

    return 0


# Preparing


def prepare(name: str, part: str) -> str:
    """
    Write a new version, its changelog entry, and the ranges of the siblings that need this distribution.

    Args:
        name: The distribution.
        part: Which part of the version grows.

    Returns:
        What was done.

    Raises:
        Failed: The changelog has nothing to release.
    """
    project = PACKAGES / name / "pyproject.toml"
    changelog = PACKAGES / name / "CHANGELOG.md"
    old = version_of(name)
    new = bump(old, part)
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    entry = changelog_for(changelog.read_text(encoding="utf-8"), new, today)
    changelog.write_text(entry, encoding="utf-8")
    text = project.read_text(encoding="utf-8").replace(f'version = "{old}"', f'version = "{new}"', 1)
    project.write_text(text, encoding="utf-8")
    touched = []

    for sibling in IMPORT_NAMES:
        path = PACKAGES / sibling / "pyproject.toml"
        before = path.read_text(encoding="utf-8")
        after = widened(before, name, new)

        if after != before:
            path.write_text(after, encoding="utf-8")
            touched.append(sibling)

    ranges = f"; its range was moved in {', '.join(touched)}, which need a release too" if touched else ""
    return f"{name} {old} → {new}{ranges}. Review, run verify, commit, then tag {name}-v{new}."


def dry_run(names: Sequence[str]) -> int:
    """
    Try a release of the present versions: what it would write, all of `verify`, and the tags.

    Args:
        names: Distributions; none for all.

    Returns:
        0 when all holds.
    """
    wanted = _known(names)
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    changelogs: dict[str, str] = {}

    for name in wanted:
        version = version_of(name)
        text = (PACKAGES / name / "CHANGELOG.md").read_text(encoding="utf-8")
        # A version that has its entry already was prepared before.
        changelogs[name] = text if release_notes(text, version) else changelog_for(text, version, today)
        lines = len(release_notes(changelogs[name], version).splitlines())
        print(f"{name} {version}: {lines} lines in the changelog, tag {tag_of(name)}")

    return verify(wanted, changelogs)


def _known(names: Sequence[str]) -> list[str]:
    """Return the distributions of these names; all without one."""
    unknown = [name for name in names if name not in IMPORT_NAMES]

    if unknown:
        raise Failed(f"there is no distribution {unknown[0]!r}: choose from {', '.join(IMPORT_NAMES)}")

    return list(names or IMPORT_NAMES)


def version_of(name: str) -> str:
    """Return the present version of a distribution."""
    text = (PACKAGES / name / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "([^"]+)"$', text, re.MULTILINE)

    if found is None:
        raise Failed(f"{name} has no version in its pyproject.toml")

    return found[1]


def bump(version: str, part: str) -> str:
    """
    Let one part of a version grow.

    Example:
        >>> bump("0.1.3", "patch"), bump("0.1.3", "minor"), bump("1.4.2", "major")
        ('0.1.4', '0.2.0', '2.0.0')
    """
    if part == "current":
        return version

    numbers = [int(number) for number in version.split(".")]
    place = {"major": 0, "minor": 1, "patch": 2}[part]
    grown = [*numbers[:place], numbers[place] + 1, *([0] * (2 - place))]
    return ".".join(map(str, grown))


def changelog_for(text: str, version: str, date: str) -> str:
    """
    Put a version and a date on the unreleased part of a changelog, and open a new one above it.

    Args:
        text: The changelog, in the form of Keep a Changelog.
        version: The new version.
        date: In ISO form.

    Returns:
        The new text.

    Raises:
        Failed: There is no unreleased part, or nothing in it.
    """
    if not release_notes(text, "Unreleased"):
        raise Failed("the changelog has nothing under '## Unreleased': write down what changes for users")

    return re.sub(
        r"^## \[?Unreleased\]?[^\n]*$",
        f"## [Unreleased]\n\n## [{version}] - {date}",
        text,
        count=1,
        flags=re.MULTILINE,
    )


def release_notes(text: str, version: str) -> str:
    r"""
    Return what a changelog says of one version.

    Example:
        >>> release_notes("# Log\n## Unreleased\n- new\n## 0.1.0\n- old\n", "Unreleased")
        '- new'
    """
    found = re.search(
        rf"^## \[?{re.escape(version)}\]?[^\n]*\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL
    )
    return found[1].strip() if found else ""


def widened(project: str, name: str, version: str) -> str:
    """
    Move the range in which a project requires a sibling, when a new version lies outside of it.

    Example:
        >>> widened('"ws-core>=0.1,<0.2"', "ws-core", "0.2.0")
        '"ws-core>=0.2,<0.3"'
        >>> widened('"ws-core>=0.1,<0.2"', "ws-core", "0.1.7")
        '"ws-core>=0.1,<0.2"'
    """
    major, minor, _ = (int(number) for number in version.split("."))
    low, high = (f"0.{minor}", f"0.{minor + 1}") if major == 0 else (f"{major}.0", f"{major + 1}.0")
    pattern = rf'("{re.escape(name)}(?:\[[^\]]*\])?)>=[\d.]+,<([\d.]+)"'

    def move(found: re.Match[str]) -> str:
        inside = tuple(map(int, version.split("."))) < tuple(map(int, found[2].split(".")))
        return found[0] if inside else f'{found[1]}>={low},<{high}"'

    return re.sub(pattern, move, project)


# Verifying


def verify(names: Sequence[str], changelogs: Mapping[str, str] | None = None) -> int:
    """
    Run every check of a release.

    Args:
        names: Distributions; none for all.
        changelogs: Their changelogs, where they are not yet those of the tree.

    Returns:
        0 when all holds.
    """
    from tools.checks.__main__ import run_all  # noqa: PLC0415 - only this command needs the checks
    from tools.checks._wheels import wheel_checks  # noqa: PLC0415

    wanted = _known(names)
    written = changelogs or {
        name: (PACKAGES / name / "CHANGELOG.md").read_text(encoding="utf-8") for name in wanted
    }
    checks = [
        check
        for check in wheel_checks()
        if not check.name.startswith("alone:") or check.name.removeprefix("alone:") in wanted
    ]

    for name in wanted:
        checks.append(Check(f"changelog:{name}", lambda name=name: check_changelog(name, written[name])))  # type: ignore[misc]
        checks.append(Check(f"interface:{name}", lambda name=name: check_interface(name), cost=5))  # type: ignore[misc]

    outcomes = run_all(checks, workers=2)

    # Alone on the machine, or the times mean nothing.
    if all(outcome.problem is None for outcome in outcomes if outcome.check.name.startswith("alone:")):
        budgets = [
            Check(f"budget:{name}", lambda name=name: check_budget(name))  # type: ignore[misc]
            for name in wanted
        ]
        outcomes += run_all(budgets, workers=1)

    failed = [outcome.check.name for outcome in outcomes if outcome.problem is not None]
    print(f"\n{'failed: ' + ', '.join(failed) if failed else 'ready to be tagged'}")
    return 1 if failed else 0


def check_changelog(name: str, text: str) -> str | None:
    """The changelog has an entry for the present version."""
    version = version_of(name)

    if not release_notes(text, version):
        raise Failed(f"CHANGELOG.md of {name} says nothing of {version}")

    return version


def check_interface(name: str) -> str | None:
    """What breaks users since the last tag asks for a version that says so."""
    imported = IMPORT_NAMES[name]
    earlier = [tag for tag in tags() if tag.startswith(f"{name}-v") and tag != tag_of(name)]

    if imported is None or not earlier:
        return "no earlier release to compare with"

    python = dev.hatch_environment("release")
    source = f"packages/{name}/src"
    words = [str(python), "-m", "griffe", "check", imported, "--search", source, "--against", earlier[-1]]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    breaks = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    old, new = earlier[-1].removeprefix(f"{name}-v"), version_of(name)
    needed = part_needed(old, breaking=bool(done.returncode))

    if needed is not None and _order(new) < _order(bump(old, needed)):
        shown = "\n".join(breaks)
        raise Failed(f"{shown}\nthis breaks users of {old}: {new} must be at least {bump(old, needed)}")

    return f"{len(breaks)} breaking changes since {old}" if done.returncode else f"compatible with {old}"


def part_needed(version: str, *, breaking: bool) -> str | None:
    """
    Return which part has to grow for a change.

    Example:
        >>> part_needed("0.3.1", breaking=True), part_needed("1.3.1", breaking=True)
        ('minor', 'major')
    """
    if not breaking:
        return None

    return "minor" if version.startswith("0.") else "major"


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def check_budget(name: str) -> str | None:
    """Importing is quick, and an install brings little."""
    from tools.checks._wheels import ALONE  # noqa: PLC0415 - only this command needs the checks

    python = dev.executable(ALONE / name, "python")
    uv = dev.install_uv()
    listed = json.loads(command([uv, "pip", "list", "--quiet", "--python", python, "--format", "json"]))
    most_time, most_count = BUDGETS[name]
    cost = import_cost(python, IMPORT_NAMES[name] or "wintersweet")
    note = f"import {cost:.0f} ms of {most_time:.0f}, {len(listed)} distributions of {most_count}"

    if cost > most_time or len(listed) > most_count:
        raise Failed(note)

    return note


def import_cost(python: Path, module: str, *, rounds: int = 7) -> float:
    """
    Measure how many milliseconds of the processor an import takes, in a new interpreter with warm caches.

    Args:
        python: The interpreter.
        module: What is imported.
        rounds: Of which the median is taken.

    Returns:
        The milliseconds.
    """
    code = (
        "import sys, time; start = time.process_time(); __import__(sys.argv[1]);"
        " print((time.process_time() - start) * 1000)"
    )
    times = [float(command([python, "-c", code, module])) for _ in range(rounds + 1)]
    return statistics.median(times[1:])


def tag_of(name: str) -> str:
    """Return the tag of a distribution's present version."""
    return f"{name}-v{version_of(name)}"


def tags() -> list[str]:
    """List the tags of this repository, the oldest version first."""
    return command(["git", "tag", "--list", "--sort=version:refname"]).split()


if __name__ == "__main__":
    sys.exit(main())
