"""The ops page ``/_ops``: what all workers of a service on this machine are doing, live.

It is off unless the setting OPS is on. With OPS_TOKEN a client may read and act; without it, only
programs on the same machine may read, and nobody may act.
"""

from ws_web.ops._routes import add_ops_routes as add_ops_routes

__all__ = ("add_ops_routes",)
