"""What `qprd predict` does, step by step."""
