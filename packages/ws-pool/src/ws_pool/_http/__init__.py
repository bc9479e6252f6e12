"""The insides of `ws_pool.http`."""
