"""Pools, tasks, loops, cache, HTTP and NTP, under the module names of the first wintersweet."""

__all__: tuple[str, ...] = ()
