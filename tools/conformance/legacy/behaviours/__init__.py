"""What users of wintersweet 1.1.4 wrote, each in a function whose result is recorded on that version.

Runs on Python 3.8 with 1.1.4 and on ours, so nothing newer than both stands here. A function returns
plain values, which are compared; each runs in a process of its own.
"""

from . import caches, helpers, http, redis, sql, tasks, web  # noqa: F401 - they register themselves
from ._setup import BEHAVIOURS

__all__ = ("BEHAVIOURS",)
