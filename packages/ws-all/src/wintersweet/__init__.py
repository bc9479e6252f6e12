"""Every wintersweet library under the original's module paths, the CLI and the demo."""

__all__: tuple[str, ...] = ()
