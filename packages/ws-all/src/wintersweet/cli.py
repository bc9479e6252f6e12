"""The command line: ``wintersweet``, also ``python -m wintersweet``.

Each command is a thin layer: it declares what can be typed and imports what it needs only when it runs, so
that ``--help`` is quick. `main` turns every `WsError` into one message on stderr and an exit status.
"""

from __future__ import annotations

import enum
import functools
import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

import typer

from ws_core.errors import ConfigError, UsageError, WsError

__all__ = ("app", "main")

app: typer.Typer = typer.Typer(
    name="wintersweet",
    help="Async Python services from a short settings file.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

db: typer.Typer = typer.Typer(no_args_is_help=True, help="Change the tables with Alembic, over the pools.")
app.add_typer(db, name="db")

P = ParamSpec("P")
T = TypeVar("T")
Pool = Annotated[str, typer.Option("--pool", metavar="NAME", help="Which pool of DATABASES.")]
Target = Annotated[
    str | None,
    typer.Argument(
        metavar="MODULE:NAME",
        help="The application or its factory. Default: app in \\[tool.wintersweet] of pyproject.toml.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout instead of a table.")]


class Engine(enum.StrEnum):
    """What runs the demo's chores."""

    LOCAL = "local"
    TASKIQ = "taskiq"


def in_project(function: Callable[P, T]) -> Callable[P, T]:
    """Run a command in the project of this directory, with its servers for development."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        from wintersweet._cli.embedded import embedded_servers
        from wintersweet._cli.project import use

        use()

        with embedded_servers(Path.cwd()):
            return function(*args, **kwargs)

    return run


def main() -> None:
    """Run the command line, and exit: 2 for wrong settings and usage, 1 for other failures."""
    try:
        app()
    except WsError as error:
        from wintersweet._cli.output import fail

        fail(str(error))
        sys.exit(2 if isinstance(error, ConfigError | UsageError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        from wintersweet._cli.output import fail
        from wintersweet._cli.user_code import describe_failure

        if (failure := describe_failure(error, Path.cwd())) is None:
            raise  # a fault of ours, with all its lines

        fail(f"this project's code failed:\n{failure}")
        sys.exit(1)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer's callback
    if wanted:
        typer.echo(f"wintersweet {importlib.metadata.version('ws-all')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Async Python services from a short settings file."""


@app.command()
def demo(
    *,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 2,
    load: Annotated[int, typer.Option(min=0, metavar="BUYERS", help="Send so many buyers in.")] = 0,
    stock: Annotated[int, typer.Option(min=0, help="Pieces on sale.")] = 500,
    at_once: Annotated[int, typer.Option(min=1, max=5000, help="Buyers in the shop at the same time.")] = 64,
    exit_after: Annotated[
        bool, typer.Option("--exit", help="End after the load instead of serving on.")
    ] = False,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port; 0 takes a free one. Default: 8000, with --exit a free one."
        ),
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Keep the log and the embedded database there.")
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="Where chores run: in the workers, or as jobs in processes of their own.")
    ] = Engine.LOCAL,
    job_workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Processes that run jobs, with --engine taskiq. Default: 2."),
    ] = None,
    chaos: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Kill workers, servers and connections for so long, while buyers buy.",
        ),
    ] = 0,
    restart_redis: Annotated[
        str | None, typer.Option(metavar="COMMAND", help="With --chaos: kills and restarts Redis.")
    ] = None,
    restart_database: Annotated[
        str | None, typer.Option(metavar="COMMAND", help="With --chaos: kills and restarts the database.")
    ] = None,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "--json", help="Nothing but the JSON line: no start message, no progress bar."
        ),
    ] = False,
) -> None:
    """
    Serve the flash-sale demo: a small shop that uses every part.

    Runs on SQLite and an embedded Valkey, or on the servers that the environment names:
    WS_DATABASES__default__url=mysql://… and WS_REDIS_CONFIG__default__url=redis://…
    With --load or --chaos, one JSON line on stdout sums the sale up; everything else goes to stderr.
    """
    if chaos and load:
        raise UsageError("--chaos sends buyers of its own: leave --load out")

    if not chaos and (restart_redis or restart_database):
        raise UsageError("--restart-redis and --restart-database say how --chaos SECONDS restarts a server")

    if job_workers and engine is Engine.LOCAL:
        raise UsageError("--job-workers is for --engine taskiq: the local engine runs chores in the workers")

    from wintersweet.demo.command import Options, run

    options = Options(
        host=host,
        port=port,
        workers=workers,
        load=load,
        stock=stock,
        at_once=at_once,
        exit=exit_after,
        quiet=quiet,
        state_dir=state_dir,
        engine=engine.value,
        job_workers=job_workers or 2,
        chaos=chaos,
        restart_redis=restart_redis,
        restart_database=restart_database,
    )
    raise typer.Exit(run(options))


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the project, such as shop; also its directory.")],
    *,
    parts: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="PARTS",
            help="Some of redis, mysql, postgres, ws, tasks, auth, with commas between;"
            " the last three bring redis. Without a database it is SQLite.",
        ),
    ] = "",
) -> None:
    """Create a project that runs, and passes its own tests, at once."""
    from wintersweet._cli.new import check_parts, create

    create(name, Path.cwd(), check_parts(parts))


@app.command()
@in_project
def run(
    target: Target = None,
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: LISTEN_HOST.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port. Default: LISTEN_PORT.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Processes. Default: PROCESS_NUM.")
    ] = None,
    reload: Annotated[bool, typer.Option("--reload", help="Start anew when a source file changes.")] = False,
) -> None:
    """Serve an application."""
    from wintersweet._cli.run import serve

    raise typer.Exit(serve(target, host=host, port=port, workers=workers, reload=reload))


@app.command()
@in_project
def worker(
    target: Annotated[
        str,
        typer.Argument(metavar="MODULE[:ENGINE]", help="The module of the tasks, with their TaskiqEngine."),
    ],
    *,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Jobs at once. Default: the broker's.")
    ] = None,
    drain_timeout: Annotated[float, typer.Option(min=0, help="Seconds for jobs to end after SIGTERM.")] = 30,
    schedules: Annotated[bool, typer.Option("--schedules", help="Follow the tasks' schedules too.")] = False,
) -> None:
    """Run jobs until SIGTERM or Ctrl-C, with the pools of the settings."""
    from wintersweet._cli.worker import work

    raise typer.Exit(work(target, concurrency=concurrency, drain_timeout=drain_timeout, schedules=schedules))


@app.command()
@in_project
def tasks(
    target: Annotated[
        str, typer.Argument(metavar="MODULE[:ENGINE]", help="The module of the tasks, or its engine.")
    ],
    *,
    run_now: Annotated[str | None, typer.Option("--run", metavar="TASK", help="Run one now.")] = None,
    arguments: Annotated[
        str, typer.Option("--args", metavar="JSON", help="Its arguments: a list, or an object.")
    ] = "[]",
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for its result.")] = 60,
    as_json: AsJson = False,
) -> None:
    """List tasks with their next runs and last results, or run one now."""
    from wintersweet._cli.tasks import run_one, show

    if run_now is None:
        show(target, as_json=as_json)
    else:
        raise typer.Exit(run_one(target, run_now, arguments, timeout=timeout))


@app.command()
@in_project
def check(
    *,
    deploy: Annotated[
        bool, typer.Option("--deploy", help="Find settings that should not reach production, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the settings with their sources, and try to reach every server they name."""
    from wintersweet._cli.check import check_all

    raise typer.Exit(check_all(deploy=deploy, as_json=as_json))


@app.command()
@in_project
def routes(target: Target = None, *, as_json: AsJson = False) -> None:
    """List the routes of an application."""
    from wintersweet._cli.routes import show

    show(target, as_json=as_json)


@app.command()
@in_project
def openapi(
    target: Target = None,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there.")
    ] = None,
) -> None:
    """Print the OpenAPI document of an application, as JSON."""
    from wintersweet._cli.application import export

    export(target, output)


@app.command()
@in_project
def shell(
    *,
    plain: Annotated[
        bool, typer.Option("--plain", help="Without IPython, also where it is installed.")
    ] = False,
) -> None:
    """Open a prompt with the settings and the started pools, where await works."""
    from wintersweet._cli.shell import open_shell

    raise typer.Exit(open_shell(plain=plain))


@app.command()
def ops(
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="URL",
            help="The service, such as http://localhost:8080. Default: LISTEN_HOST and LISTEN_PORT.",
        ),
    ] = None,
    *,
    token: Annotated[str | None, typer.Option(help="Default: OPS_TOKEN of the settings.")] = None,
    watch: Annotated[
        float | None, typer.Option(min=0.2, metavar="SECONDS", help="Show it again and again, until Ctrl-C.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a running service is doing: health, workers, pools, tasks and locks."""
    from wintersweet._cli.ops import show_ops

    raise typer.Exit(show_ops(url, token=token, watch=watch, as_json=as_json))


@app.command()
def bench(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="URL|MODULE:NAME",
            help="A route of a running service, or an application, which is started for this."
            " Default: app in \\[tool.wintersweet] of pyproject.toml.",
        ),
    ] = None,
    *,
    path: Annotated[str | None, typer.Option(help="The route of an application. Default: /.")] = None,
    method: Annotated[str, typer.Option(help="Of the requests.")] = "GET",
    body: Annotated[str | None, typer.Option(help="Of each request.")] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="'NAME: VALUE'", help="Of each request; several times.")
    ] = None,
    duration: Annotated[float, typer.Option(min=0.1, max=3600, metavar="SECONDS", help="How long.")] = 10,
    concurrency: Annotated[int, typer.Option(min=1, max=5000, help="Requests at the same time.")] = 10,
    timeout: Annotated[float, typer.Option(min=0.001, metavar="SECONDS", help="Of each request.")] = 10,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Of an application that is started.")] = 1,
    remote: Annotated[bool, typer.Option("--remote", help="Send load to another machine too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put load on one route, and show how many requests a second it answers, how fast, and the errors."""
    from wintersweet._cli.bench import Load, measure

    wanted = Load(
        method=method.upper(),
        body=body,
        headers=tuple(header or ()),
        seconds=duration,
        at_once=concurrency,
        timeout=timeout,
    )
    raise typer.Exit(measure(target, wanted, path=path, workers=workers, remote=remote, as_json=as_json))


@db.command("init")
def db_init(
    *,
    metadata: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:NAME",
            help="The MetaData of the tables. Default: tables:metadata in the project's package.",
        ),
    ] = None,
) -> None:
    """Write the directory migrations, in which revisions will be."""
    from wintersweet._cli.migrations import init

    init(metadata)


@db.command("revision")
@in_project
def db_revision(
    *,
    message: Annotated[str, typer.Option("--message", "-m", help="What it changes.")],
    empty: Annotated[bool, typer.Option("--empty", help="Compare nothing: for changes by hand.")] = False,
    identifier: Annotated[
        str | None, typer.Option("--rev-id", metavar="ID", help="Its name, such as 0002.")
    ] = None,
    pool: Pool = "default",
) -> None:
    """Write the next revision: what the tables in the code have, and those in the database have not."""
    from wintersweet._cli.migrations import revision

    revision(message, empty=empty, identifier=identifier, pool=pool)


@db.command("upgrade")
@in_project
def db_upgrade(
    revision: Annotated[str, typer.Argument(help="How far; +1 is one step.")] = "head",
    *,
    pool: Pool = "default",
) -> None:
    """Run the revisions that the database does not have yet."""
    from wintersweet._cli.migrations import upgrade

    upgrade(revision, pool=pool)


# "-1" is a revision here, not an option.
@db.command("downgrade", context_settings={"ignore_unknown_options": True})
@in_project
def db_downgrade(
    revision: Annotated[str, typer.Argument(help="How far; -1 is one step, base is all of them.")],
    *,
    pool: Pool = "default",
) -> None:
    """Undo revisions, the last one first."""
    from wintersweet._cli.migrations import downgrade

    downgrade(revision, pool=pool)


@db.command("current")
@in_project
def db_current(*, pool: Pool = "default") -> None:
    """Print the revision of the database; nothing is printed before the first."""
    from wintersweet._cli.migrations import current

    current(pool=pool)
