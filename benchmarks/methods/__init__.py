"""Reverse distillation and the methods it is compared with, one a module.

Each knows images, labels and its own settings, and nothing of folders, splits or metrics.
"""
