"""The web framework on FastAPI, under the module names of the first wintersweet."""

__all__: tuple[str, ...] = ()
