"""What all locks on one client share: tokens, wake-ups and heartbeats, for threads."""
