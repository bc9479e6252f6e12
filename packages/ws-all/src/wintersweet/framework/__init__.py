"""Settings and the web framework, under the module names of the first wintersweet."""

__all__: tuple[str, ...] = ()
