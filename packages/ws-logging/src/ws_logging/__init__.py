"""loguru set-up in one call: a lossless queued file sink, rotation, standard-library interception."""

__all__: tuple[str, ...] = ()
