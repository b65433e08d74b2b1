"""The steps of ``qprd doctor``."""
