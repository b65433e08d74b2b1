"""Focal reverse distillation: teacher, bottleneck, student, loss, anomaly map, bundle.

Pure torch: no slides, no QuPath, no I/O but the bundle.
"""
