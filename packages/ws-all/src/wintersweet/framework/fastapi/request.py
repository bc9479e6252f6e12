"""Routers and requests: `ws_web.request`."""

from ws_web.request import APIRoute as APIRoute
from ws_web.request import APIRouter as APIRouter
from ws_web.request import Request as Request

__all__ = (
    "APIRoute",
    "APIRouter",
    "Request",
)
