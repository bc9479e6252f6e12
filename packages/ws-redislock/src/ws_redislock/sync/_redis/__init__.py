# Written by tools/generate_sync_locks.py from ws_redislock/_redis/__init__.py; do not edit.
"""How scripts reach Redis: clients, connections, keys and the scripts themselves."""
