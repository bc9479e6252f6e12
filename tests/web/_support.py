"""What the tests of routes share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from ws_web import ErrResponse, create_app
from ws_web.testing import AppClient

# Any below: endpoints return what they like, and options are the client's and FastAPI's.


async def get(declare: Callable[[FastAPI], object], *, path: str = "/", **options: Any) -> Any:
    """Declare one route on a new application, call it, and return the reply."""
    app = create_app()
    declare(app)

    async with AppClient(app) as client:
        return await client.get(path, **options)


def only(endpoint: Callable[..., Any], **options: Any) -> Any:
    """Return a declaration of one GET route at /."""
    return lambda app: app.get("/", **options)(endpoint)


def refuse() -> None:
    """A dependency that ends the request."""
    raise ErrResponse(["details"], 4001, 409, msg="sold out")
