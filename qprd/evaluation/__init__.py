"""Metrics with intervals, calibration, operating points, lesions and FROC."""
