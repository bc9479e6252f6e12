"""``wintersweet db``: Alembic over the SQL pools of the settings."""

from __future__ import annotations

import importlib
import io
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from wintersweet._cli.output import stderr, stdout
from wintersweet._cli.project import Project, is_missing, use
from wintersweet._cli.template import template, write
from ws_core.errors import ConfigError, MissingExtraError, UsageError
from ws_web import Settings

try:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError
except ImportError as error:  # this module is loaded by its commands alone
    message = "wintersweet db needs Alembic, which is not installed: pip install alembic"
    raise MissingExtraError(message, requirement="alembic") from error

_DIRECTORY = "migrations"


def init(metadata: str | None) -> None:
    """Write what Alembic needs beside its revisions; nothing is written over."""
    project = use()
    directory = Path.cwd() / _DIRECTORY
    module, name = _find_metadata(metadata, project)

    try:
        directory.mkdir()
    except FileExistsError:
        raise ConfigError(f"{directory} exists already: this project has its migrations") from None
    except OSError as error:
        raise ConfigError(f"cannot create {directory}: {error.strerror}") from error

    write(
        template() / _DIRECTORY,
        directory,
        {"tables": module, "metadata": name, "settings": project.settings},
    )
    (directory / "versions").mkdir()
    stderr().print(f"[green]✓[/] created [bold]{_DIRECTORY}[/] for the tables of {module}")
    stderr().print('  wintersweet db revision -m "the first tables"', markup=False)


def revision(message: str, *, empty: bool, identifier: str | None, pool: str) -> None:
    """Write a revision that makes the database what the tables in the code are."""
    _run(command.revision, message, autogenerate=not empty, rev_id=identifier, pool=pool)


def upgrade(target: str, *, pool: str) -> None:
    """Run the revisions up to one of them, and print them and where the database is now."""
    _move(command.upgrade, target, pool)


def downgrade(target: str, *, pool: str) -> None:
    """Undo the revisions down to one of them, and print them and where the database is now."""
    _move(command.downgrade, target, pool)


def current(*, pool: str) -> None:
    """Print the revision of the database."""
    _run(command.current, pool=pool)


def _find_metadata(metadata: str | None, project: Project) -> tuple[str, str]:
    """Return the module and the name of the tables' MetaData, having looked at it."""
    if metadata is None and project.app is None:
        message = "which tables? Name their MetaData: wintersweet db init --metadata shop.tables:metadata"
        raise UsageError(message)

    package = (project.app or "").partition(":")[0].partition(".")[0]
    wanted = metadata or f"{package}.tables:metadata"
    module, _, name = wanted.partition(":")

    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        if not is_missing(module, error):
            raise

        found = None

    # Not isinstance: a MetaData of SQLModel or of the ORM's Base is one too, and has what is needed.
    if not hasattr(found, "sorted_tables"):
        message = f"{wanted} is not a MetaData of SQLAlchemy: name yours with --metadata MODULE:NAME"
        raise ConfigError(message)

    return module, name


class _Steps(logging.Handler):
    """Prints each revision when it begins: Alembic reports that to its log alone, whatever is in env.py."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Print a step."""
        if record.msg != "Running %s" or not isinstance(record.args, tuple):
            return

        step: Any = record.args[0]  # a step of Alembic's, which has no public type
        before, after = (
            ", ".join(revisions) or "base"
            for revisions in (step.from_revisions_no_deps, step.to_revisions_no_deps)
        )
        stdout().print(f"{step.name} {before} -> {after}: {step.doc}", markup=False, soft_wrap=True)
        self.count += 1


def _move(do: Callable[..., object], target: str, pool: str) -> None:
    """Run revisions, show them, and ask the database where it is now."""
    steps, log = _Steps(), logging.getLogger("alembic.runtime.migration")
    level = log.level
    log.addHandler(steps)
    log.setLevel(logging.INFO)

    try:
        _run(do, target, pool=pool)
    finally:
        log.removeHandler(steps)
        log.setLevel(level)

    answer = io.StringIO()
    _run(command.current, pool=pool, output=answer)
    where = ", ".join(answer.getvalue().split("\n")[:-1]) or "base, before the first revision"
    found = "" if steps.count else "nothing to do: "
    stdout().print(f"{found}the database is at {where}", markup=False, soft_wrap=True)


def _run(
    do: Callable[..., object], *arguments: str, pool: str, output: TextIO | None = None, **options: Any
) -> None:
    """Run a command of Alembic's in this project, on one pool; the options are the command's."""
    use()
    pools = Settings().DATABASES

    if pool not in pools:
        names = ", ".join(pools) or "none"
        raise ConfigError(f"DATABASES has no pool {pool!r} (it has: {names}): set its url, or name another")

    config = Config(
        toml_file=Path.cwd() / "pyproject.toml", attributes={"pool": pool}, stdout=output or sys.stdout
    )

    if config.get_alembic_option("script_location") is None:
        config.set_main_option("script_location", _DIRECTORY)

    try:
        do(config, *arguments, **options)
    except CommandError as wrong:
        raise UsageError(f"Alembic: {wrong}{_remedy(str(wrong))}") from wrong


def _remedy(said: str) -> str:
    """Return what to do about a message of Alembic's."""
    remedies = {
        "Path doesn't exist": ": wintersweet db init",
        "not up to date": ": wintersweet db upgrade",
        "Can't locate revision": ": the files in versions have the names",
    }
    return next((remedy for words, remedy in remedies.items() if words in said), "")
