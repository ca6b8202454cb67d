"""The readers that `tests.benchmarks.stream` compares, each a program of its own with the versions it needs."""
