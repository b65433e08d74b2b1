"""Contours, heatmaps and the result pages. Knows no training."""
