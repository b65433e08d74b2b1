"""Inputs and parsers of the fuzz test."""
