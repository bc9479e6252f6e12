# Written by tools/generate_sync_locks.py from ws_redislock/_coordination/__init__.py; do not edit.
"""What all locks on one client share: tokens, wake-ups and heartbeats."""
