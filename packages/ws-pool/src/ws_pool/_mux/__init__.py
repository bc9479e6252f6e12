"""The multiplexed Redis connection: many tasks, few sockets, one write per turn of the loop."""
