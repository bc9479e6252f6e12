"""The application itself, or its pools alone, for commands that do not serve it."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI

from wintersweet._cli.project import load, use
from ws_core.errors import ConfigError
from ws_web import Settings, create_app


def build(target: str | None) -> tuple[str, FastAPI]:
    """Return the name and the application that a target stands for; a factory is called."""
    name, thing = load(target, use())
    app = thing if isinstance(thing, FastAPI) else thing()

    if not isinstance(app, FastAPI):
        raise ConfigError(f"{name} returns a {type(app).__name__}, not a FastAPI application")

    return name, app


def export(target: str | None, output: Path | None) -> None:
    """Write the application's OpenAPI document, to a file or to stdout."""
    _, app = build(target)
    text = json.dumps(app.openapi(), indent=2, ensure_ascii=False) + "\n"

    if output is None:
        sys.stdout.write(text)
        return

    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {output}: {error.strerror}") from error


@contextlib.asynccontextmanager
async def running_pools() -> AsyncIterator[None]:
    """Run the pools and the log of the settings for the length of a block."""
    app = create_app(Settings())  # without routes: its lifespan is what is needed

    async with app.router.lifespan_context(app):
        yield
