"""The SQL client: statements compiled once, run over raw driver connections. Private; see `ws_pool.mysql`."""
