"""The rows of `speed.py`: one module a row or a few, each with ``measure(setup)``."""
