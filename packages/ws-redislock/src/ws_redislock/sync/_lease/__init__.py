"""The arithmetic of leases, timers, and cancels; no Redis in here, for threads."""
