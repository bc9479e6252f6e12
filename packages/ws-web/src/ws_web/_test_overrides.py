"""What a test puts in the place of what an application depends on. Published by `ws_web.testing`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from typing import Any

from fastapi import FastAPI

from ws_web._components import manager_of

# Any below: clients of drivers, and dependencies of any type.


@contextmanager
def override(app: FastAPI, replacements: Mapping[Callable[..., Any], Callable[..., Any]]) -> Iterator[None]:
    """
    Replace dependencies of an application for the length of a ``with`` block.

    Args:
        app: The application.
        replacements: What is called in the place of each dependency.

    Example:
        ```python
        from typing import Annotated

        from fastapi import Depends

        from ws_web import create_app
        from ws_web.testing import AppClient, override

        app = create_app()


        def user() -> str:
            return "somebody"


        @app.get("/me")
        async def me(name: Annotated[str, Depends(user)]) -> str:
            return name


        async with AppClient(app) as client:
            with override(app, {user: lambda: "ann"}):
                assert (await client.get("/me")).data() == "ann"

            assert (await client.get("/me")).data() == "somebody"
        ```
    """
    before = dict(app.dependency_overrides)
    app.dependency_overrides.update(replacements)

    try:
        yield
    finally:
        app.dependency_overrides.clear()
        app.dependency_overrides.update(before)


@asynccontextmanager
async def rolled_back(
    app: FastAPI, *, section: str = "DATABASES", name: str = "default"
) -> AsyncIterator[Any]:
    """
    Serve all requests with one SQL client, in a transaction that is rolled back at the end of the block.

    It holds for routes that take their client by `ws_web.dependencies.client`, with an `AppClient` in
    the same task; their own transactions become savepoints. The lifespan must be running.

    Args:
        app: The application.
        section: The settings key of the pools.
        name: The pool's name.

    Yields:
        The client, to prepare and look at data with.
    """
    components = app.state.components
    manager = manager_of(components[section])

    async with manager.get_client(name, alone=True) as client:
        app.state.components = {**components, section: _OneClient(client, name, manager)}

        try:
            with suppress(_RolledBack):
                async with client.begin():
                    yield client
                    raise _RolledBack
        finally:
            app.state.components = components


class _RolledBack(Exception):
    """Ends a transaction without a commit."""


class _OneClient:
    """A manager of pools, of which one has a single client that is never released."""

    def __init__(self, client: Any, name: str, manager: Any) -> None:
        self._client = client
        self._name = name
        self._manager = manager

    def get_client(self, name: str = "default", *, alone: bool = False) -> AbstractAsyncContextManager[Any]:
        """Return the client; clients of other pools as always."""
        if name == self._name:
            return nullcontext(self._client)

        found: AbstractAsyncContextManager[Any] = self._manager.get_client(name, alone=alone)
        return found
