"""The template of the route that answers a request: bounded, whatever paths clients ask for."""

from __future__ import annotations

from starlette.routing import Match, Mount
from starlette.types import Scope


def route_template(scope: Scope) -> str | None:
    """Return the template, such as ``/items/{item_id}``, after those of mounts; None without a route."""
    context = scope.get("fastapi", {}).get("effective_route_context")
    template: str | None = getattr(context, "path", None) or getattr(scope.get("route"), "path", None)

    # Only a mount sets app_root_path; its own template is not in the scope, but the path matches it again.
    if "app_root_path" not in scope:
        return template

    return _mounted(scope) + (template or "/{path}")


def _mounted(scope: Scope) -> str:
    """Return the templates of the mounts that lead to the application inside."""
    app = scope.get("ws_web.app")
    inner = {**scope, "root_path": scope["app_root_path"]}
    routes = list(getattr(app, "routes", ()))
    prefix = ""

    while routes:
        mounts = (route for route in routes if isinstance(route, Mount))
        found = next(((m, m.matches(inner)[1]) for m in mounts if m.matches(inner)[0] is Match.FULL), None)

        if found is None:
            break

        mount, child = found
        prefix += mount.path
        inner = {**inner, **child}
        routes = list(mount.routes or ())

    return prefix
