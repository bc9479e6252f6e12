"""The application itself, for commands that look at it without serving it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fastapi import FastAPI

from wintersweet._cli.project import load, use
from ws_core.errors import ConfigError

__all__ = ("build", "export")


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
