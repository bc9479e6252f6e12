"""A lock: what its user calls, one acquisition, and the lease's renewal."""
