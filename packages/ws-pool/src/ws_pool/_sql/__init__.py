"""The SQL client: statements compiled once, run over raw driver connections. Private; see `ws_pool.mysql`."""

from ws_pool._core.extras import missing

try:
    import sqlalchemy  # noqa: F401 - all modules of this package do so
except ModuleNotFoundError as _error:
    raise missing("SQL in ws_pool", _error, "mysql", "sqlite") from _error
