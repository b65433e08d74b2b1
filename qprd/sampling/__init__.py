"""From annotations to labelled patches: label regions, patch table, splits, torch dataset.

Knows no model.
"""
