"""loguru set-up in one call: a lossless queued file sink, rotation by size and time, standard-library interception."""

__all__: tuple[str, ...] = ()
