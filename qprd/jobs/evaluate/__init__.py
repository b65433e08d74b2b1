"""What `qprd evaluate` does, step by step."""
