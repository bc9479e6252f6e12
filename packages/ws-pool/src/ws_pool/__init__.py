"""Named pools for MySQL, SQLite, Redis, MongoDB, HTTP and Elasticsearch."""

__all__: tuple[str, ...] = ()
