"""The flash-sale demo: a small shop that uses every part of wintersweet."""

__all__: tuple[str, ...] = ()
