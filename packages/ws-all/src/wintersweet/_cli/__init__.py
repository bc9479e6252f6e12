"""What the commands do; what can be typed is in `wintersweet.cli`."""

__all__: tuple[str, ...] = ()
