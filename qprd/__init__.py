"""qprd: find tumor in whole slides from a handful of QuPath annotations."""

__version__ = "0.1.0"
