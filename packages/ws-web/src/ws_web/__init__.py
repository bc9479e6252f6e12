"""The application layer on FastAPI: settings, components, envelope, request id."""

__all__: tuple[str, ...] = ()
