"""Benchmarks: the harness, and one module per comparison."""
