"""The insides of `ws_pool.mongo`."""
