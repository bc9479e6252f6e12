"""``wintersweet run``: serve an application."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from wintersweet._cli.output import stderr
from wintersweet._cli.project import load, use
from wintersweet._cli.reload import Reloader, end_with_parent
from ws_core.errors import UsageError


def serve(
    target: str | None,
    *,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    reload: bool = False,
) -> NoReturn:
    """Serve until SIGINT or SIGTERM."""
    if reload and (workers or 1) > 1:
        raise UsageError(f"--reload serves from one process: leave out --workers {workers}")

    end_with_parent()
    project = use()

    if reload:
        typed = {"--host": host, "--port": port}
        options = [word for name, value in typed.items() if value is not None for word in (name, str(value))]
        command = [sys.executable, "-m", "wintersweet", "run", *([target] if target else []), *options]
        sys.exit(Reloader(command, Path.cwd(), say=lambda line: stderr().print(line, style="yellow")).run())

    name, _ = load(target, project)
    from ws_web import server  # noqa: PLC0415 - a wrong target is told before the libraries are loaded

    server.run(name, host=host, port=port, workers=workers)
