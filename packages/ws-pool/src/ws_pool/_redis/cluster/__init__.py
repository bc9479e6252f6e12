"""Redis Cluster: topology, redirections, commands that span several nodes."""
