"""Bundles: trained models on disk."""
