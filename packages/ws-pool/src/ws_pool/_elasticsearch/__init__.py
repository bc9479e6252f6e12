"""The insides of `ws_pool.es`."""
