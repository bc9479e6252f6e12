"""The test suites of libraries that ours promise to behave like, run against ours."""
