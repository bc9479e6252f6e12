"""Redis locks that tell their holder when the lease is lost, and rate limiters."""

__all__: tuple[str, ...] = ()
