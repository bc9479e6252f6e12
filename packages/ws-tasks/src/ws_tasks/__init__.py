"""Interval, crontab and one-shot tasks for asyncio and trio that never drop a late run silently."""

__all__: tuple[str, ...] = ()
