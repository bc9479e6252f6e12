"""Helpers, errors, logging, metaclasses and caches, under the module names of the first wintersweet."""

__all__: tuple[str, ...] = ()
