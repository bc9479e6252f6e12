"""Named pools and process health, under the module names of the first wintersweet."""

__all__: tuple[str, ...] = ()
