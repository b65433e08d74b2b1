"""What `qprd train` does, step by step."""
