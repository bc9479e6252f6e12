"""What is known of each Redis command: its route, its keys, and whether it may be repeated."""
