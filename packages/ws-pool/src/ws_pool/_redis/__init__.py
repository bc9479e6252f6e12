"""The Redis pool and its client, from one connection up to a cluster."""
