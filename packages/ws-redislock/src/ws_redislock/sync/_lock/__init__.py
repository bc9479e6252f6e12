# Written by tools/generate_sync_locks.py from ws_redislock/_lock/__init__.py; do not edit.
"""A lock: what its user calls, one acquisition, and the lease's renewal."""
