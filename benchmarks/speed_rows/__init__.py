"""What `speed.py` measures: one module a row or a few, each with ``measure(setup)``."""
