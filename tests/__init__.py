"""The tests of the workspace; one folder per distribution."""
