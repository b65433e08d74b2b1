"""The common part of the benchmark commands: patch folders, splits, runs and tables."""
