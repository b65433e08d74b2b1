"""Scores of slides: from large fields, or patch by patch."""
