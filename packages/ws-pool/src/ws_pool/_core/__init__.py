"""The generic pool: its state, its decisions, and the tasks that carry them out; knows no driver."""
