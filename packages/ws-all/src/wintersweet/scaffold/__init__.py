"""The template of ``wintersweet new``; `wintersweet.cli` writes it out."""

__all__: tuple[str, ...] = ()
