"""Metrics and calibration. Knows no QuPath."""
