"""What the benchmark commands share: patch folders, splits, runs and tables."""
