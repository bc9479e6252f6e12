# Written by tools/generate_sync_locks.py from ws_redislock/_lease/__init__.py; do not edit.
"""The arithmetic of leases, timers, and cancels; no Redis in here."""
