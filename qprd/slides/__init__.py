"""Pixels: OpenSlide handle, resolution, tissue mask, tiles, synthetic slides.

Knows neither QuPath nor torch.
"""
