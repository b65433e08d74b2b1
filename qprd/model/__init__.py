"""The networks: teacher, discriminant, and the student of reverse distillation with its loss.

Pure torch: no slides, no QuPath, no files but weights.
"""
