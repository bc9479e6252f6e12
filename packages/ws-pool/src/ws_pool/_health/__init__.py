"""The insides of `ws_pool.health`."""
