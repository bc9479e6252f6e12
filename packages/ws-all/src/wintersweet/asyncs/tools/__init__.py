"""Loops in time, under the module names of the first wintersweet."""

__all__: tuple[str, ...] = ()
