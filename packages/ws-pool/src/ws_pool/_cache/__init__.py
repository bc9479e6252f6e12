"""The insides of `ws_pool.cache`."""
