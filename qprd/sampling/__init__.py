"""From annotations to labeled patches: label regions, patch table, splits, torch dataset.

Imports no model.
"""
