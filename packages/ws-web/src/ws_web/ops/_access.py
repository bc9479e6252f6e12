"""Access to the ops page: to see it, and to act there."""

from __future__ import annotations

import hmac
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

_FORWARDING: Final = (
    "forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "x-envoy-external-address",
    "cf-connecting-ip", "fastly-client-ip", "fly-client-ip", "true-client-ip", "x-amzn-trace-id",
)  # fmt: skip
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")


def may_read(request: Request, token: str) -> bool:
    """Return whether a request has the token, or comes from a program on this machine."""
    return has_token(request, token) or _is_local(request)


def may_act(request: Request, token: str) -> bool:
    """Return whether a request has the token, and comes from no page but ours."""
    return has_token(request, token) and _is_same_origin(request)


def why_not_act(token: str) -> str:
    """Return what somebody who may not act should do."""
    return "actions need the token and a page of this host" if token else "set OPS_TOKEN to allow actions"


def has_token(request: Request, token: str) -> bool:
    """Return whether a request has the token; in a time that does not depend on how much of it is right."""
    sent = request.headers.get("authorization", "")
    return bool(token) and hmac.compare_digest(sent.encode(), f"Bearer {token}".encode())


def _is_local(request: Request) -> bool:
    """Return whether nothing stands between a program on this machine and us, as far as can be seen."""
    if request.client is None or any(_is_forwarding(name) for name in request.headers):
        return False

    try:
        loopback = ip_address(request.client.host).is_loopback
    except ValueError:
        return False

    # The name is looked at as well: a page of another site may have had its own resolved to this machine.
    return loopback and _host(request) in _LOCAL and _is_same_origin(request)


def _is_forwarding(name: str) -> bool:
    """Return whether a header is one that a proxy has added."""
    return name.startswith("x-forwarded-") or name in _FORWARDING


def _is_same_origin(request: Request) -> bool:
    """Return whether a browser sends this for a page of this host, or it is not a browser."""
    origin = request.headers.get("origin")

    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False

    try:
        return origin is None or urlsplit(origin).netloc == request.headers.get("host")
    except ValueError:
        return False


def _host(request: Request) -> str | None:
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname
    except ValueError:
        return None
