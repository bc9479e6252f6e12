"""How scripts reach Redis: clients, connections, keys and the scripts themselves, for threads."""
